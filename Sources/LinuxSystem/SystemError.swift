import Glibc

/// A system call that failed.
public struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The C `errno`.
    public let errno: Int32
    /// The C name of the call, also the name by which `SystemCallFaults` knows it.
    public let operation: String
    /// What it was done to: a path, a socket's name, a process.
    public let subject: String?

    public init(errno: Int32, operation: String, subject: String? = nil) {
        self.errno = errno
        self.operation = operation
        self.subject = subject
    }

    /// The text of `strerror(3)`.
    public static func text(errno: Int32) -> String {
        // glibc's strerror returns a string of the calling thread or a constant, valid until the next call here.
        guard let text = strerror(errno) else { return "error \(errno)" }
        return String(cString: text)
    }

    public var reason: String { Self.text(errno: errno) }

    public var description: String {
        guard let subject else { return "\(operation): \(reason)" }
        return "\(operation) '\(subject)': \(reason)"
    }
}

/// The `errno` values by which the rest of the agent decides, so that it need not import Glibc.
public enum Errno {
    public static let notPermitted = EPERM
    public static let noEntry = ENOENT
    public static let interrupted = EINTR
    public static let io = EIO
    public static let badDescriptor = EBADF
    public static let tryAgain = EAGAIN
    public static let noMemory = ENOMEM
    public static let badAddress = EFAULT
    public static let accessDenied = EACCES
    public static let busy = EBUSY
    public static let exists = EEXIST
    public static let notDirectory = ENOTDIR
    public static let isDirectory = EISDIR
    public static let invalid = EINVAL
    public static let tooManyFiles = EMFILE
    public static let fileTooBig = EFBIG
    public static let noSpace = ENOSPC
    public static let readOnlyFileSystem = EROFS
    public static let brokenPipe = EPIPE
    public static let nameTooLong = ENAMETOOLONG
    public static let notImplemented = ENOSYS
    public static let notSupported = EOPNOTSUPP
    public static let noData = ENXIO
    public static let noDevice = ENODEV
    public static let notTTY = ENOTTY
    public static let noProcess = ESRCH
    public static let noChild = ECHILD
    public static let connectionRefused = ECONNREFUSED
    public static let connectionReset = ECONNRESET
    public static let notConnected = ENOTCONN
    public static let addressInUse = EADDRINUSE
    public static let timedOut = ETIMEDOUT
    public static let inProgress = EINPROGRESS
    public static let cancelled = ECANCELED
    public static let shutdown = ESHUTDOWN
    public static let stale = ESTALE
    public static let messageSize = EMSGSIZE
    public static let quotaExceeded = EDQUOT
    public static let notEmpty = ENOTEMPTY
    public static let crossDevice = EXDEV
    public static let overflow = EOVERFLOW
}
