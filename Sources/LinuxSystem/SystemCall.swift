import Glibc

/// The one place through which every system call goes.
enum SystemCall {
    /// Runs `body` until it does not end with EINTR. A result of -1 becomes an error with `errno`.
    @inline(__always)
    static func run<Result: FixedWidthInteger & SignedInteger>(
        _ operation: String, _ subject: @autoclosure () -> String? = nil, _ body: () -> Result
    ) throws(SystemError) -> Result {
        try checkFault(operation, subject())
        while true {
            let result = body()
            if result != -1 { return result }
            let code = errno
            if code != EINTR { throw SystemError(errno: code, operation: operation, subject: subject()) }
        }
    }

    /// The same for a call on a path. A path with a NUL byte is refused with EINVAL: C would cut it short and work on
    /// another file.
    @inline(__always)
    @discardableResult
    static func run<Result: FixedWidthInteger & SignedInteger>(
        _ operation: String, path: String, _ body: () -> Result
    ) throws(SystemError) -> Result {
        if path.utf8.contains(0) { throw SystemError(errno: EINVAL, operation: operation, subject: path) }
        return try run(operation, path, body)
    }

    /// For calls that return an errno instead of setting it.
    @inline(__always)
    static func check(
        _ operation: String, _ subject: @autoclosure () -> String? = nil, _ body: () -> Int32
    ) throws(SystemError) {
        try checkFault(operation, subject())
        while true {
            let code = body()
            if code == 0 { return }
            if code != EINTR { throw SystemError(errno: code, operation: operation, subject: subject()) }
        }
    }

    @inline(__always)
    static func checkFault(_ operation: String, _ subject: @autoclosure () -> String?) throws(SystemError) {
        if SystemCallFaults.isArmed, let code = SystemCallFaults.next(operation) {
            throw SystemError(errno: code, operation: operation, subject: subject())
        }
    }

    /// An offset as `off_t`; EFBIG for what no file reaches.
    @inline(__always)
    static func offset(_ value: UInt64, _ operation: String) throws(SystemError) -> off_t {
        guard let offset = off_t(exactly: value) else { throw SystemError(errno: EFBIG, operation: operation) }
        return offset
    }
}
