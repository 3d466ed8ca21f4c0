import CLinux
import Glibc

/// How a process ended.
public enum ExitStatus: Sendable, Equatable {
    case exited(Int32)
    case signalled(Int32)
}

/// This process and its children.
public enum ProcessControl {
    /// `getenv(3)`.
    public static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }

    /// Ends this process as `kill -9` does.
    public static func killSelf() -> Never {
        Glibc.kill(getpid(), SIGKILL)
        // The signal cannot be handled; this is not reached.
        _exit(137)
    }

    /// `prctl(2)` PR_SET_PDEATHSIG: this process gets the signal when the thread that has started it ends.
    public static func signalAtParentsEnd(_ signal: Int32) { cf_signal_at_parents_end(signal) }

    /// `_exit(2)`: at once, nothing is flushed.
    public static func exitImmediately(_ code: Int32) -> Never { _exit(code) }

    public static var currentPID: Int32 { getpid() }
    public static var parentPID: Int32 { getppid() }
    public static var effectiveUserID: UInt32 { geteuid() }
    public static var effectiveGroupID: UInt32 { getegid() }

    /// `waitpid(2)` WNOHANG: nil while the child runs.
    public static func waitNonBlocking(_ pid: Int32) throws(SystemError) -> ExitStatus? {
        try wait(pid, canBlock: false)
    }

    /// `waitpid(2)`: blocks the thread until the child has ended.
    public static func wait(_ pid: Int32) throws(SystemError) -> ExitStatus {
        while true {
            if let status = try wait(pid, canBlock: true) { return status }
        }
    }

    private static func wait(_ pid: Int32, canBlock: Bool) throws(SystemError) -> ExitStatus? {
        var exited = false
        var code: Int32 = 0
        let found = try SystemCall.run("waitpid", "\(pid)") { cf_wait(pid, canBlock, &exited, &code) }
        if found == 0 { return nil }
        return exited ? .exited(code) : .signalled(code)
    }

    /// `kill(2)`. Signal 0 only asks whether the process is there.
    public static func signal(_ pid: Int32, _ signal: Int32) throws(SystemError) {
        _ = try SystemCall.run("kill", "\(pid)") { Glibc.kill(pid, signal) }
    }

    /// `pidfd_send_signal(2)`: to exactly that process, however its number is used meanwhile.
    public static func signal(pidfd: Descriptor, _ signal: Int32) throws(SystemError) {
        _ = try SystemCall.run("pidfd_send_signal") { cf_pidfd_send_signal(pidfd.raw, signal) }
    }

    /// `pidfd_open(2)`: readable once the process has ended.
    public static func pidfdOpen(_ pid: Int32) throws(SystemError) -> Descriptor {
        Descriptor(owning: try SystemCall.run("pidfd_open", "\(pid)") { cf_pidfd_open(pid) })
    }

    /// `fork(2)` twice with `setsid(2)` between: the caller gets the pid of a process that is nobody's child and has no
    /// terminal; that process gets nil. Only while the process has one thread: first in `main`, if at all.
    public static func forkDetached() throws(SystemError) -> Int32? {
        let pid = try SystemCall.run("fork") { cf_fork_detached() }
        return pid == 0 ? nil : pid
    }

    /// A copy of a standard stream (0, 1, 2), which itself stays open.
    public static func standardStream(_ number: Int32) throws(SystemError) -> Descriptor {
        Descriptor(owning: try SystemCall.run("dup") { cf_duplicate(number, 3) })
    }
}
