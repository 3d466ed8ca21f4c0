import CLinux
import Glibc

/// Numbers of signals, and how this process treats them.
public enum Signals {
    public static let terminate = SIGTERM
    public static let interrupt = SIGINT
    public static let hangUp = SIGHUP
    public static let kill = SIGKILL
    public static let child = SIGCHLD
    public static let user1 = SIGUSR1
    public static let stop = SIGSTOP
    public static let `continue` = SIGCONT

    private static let ignoredBrokenPipe: Void = { _ = Glibc.signal(SIGPIPE, SIG_IGN) }()

    /// Writes to a closed pipe or connection fail with EPIPE instead of ending the process. Everything here that makes
    /// a socket or pipe does it.
    public static func ignoreBrokenPipe() { _ = ignoredBrokenPipe }

    /// `pthread_sigmask(3)`: blocks the signals in this thread and in those it starts from now on. Called first in
    /// `main`, it leaves them to a `SignalWaiter`.
    public static func block(_ signals: [Int32]) throws(SystemError) {
        try SystemCall.check("pthread_sigmask") { cf_block_signals(signals, signals.count) }
    }
}

/// Waits for signals in a thread instead of a handler (`signalfd(2)`).
public final class SignalWaiter: Sendable {
    private let descriptor: Descriptor

    /// The signals must be blocked in every thread (`Signals.block` first in `main`), or else they take their usual way;
    /// here they are blocked in the calling thread.
    public init(signals: [Int32]) throws(SystemError) {
        try Signals.block(signals)
        descriptor = Descriptor(owning: try SystemCall.run("signalfd") { cf_signalfd(signals, signals.count) })
    }

    /// For `pollDescriptors`.
    public var raw: Int32 { descriptor.raw }

    /// Blocks the thread until one of the signals comes, and returns it.
    public func wait() throws(SystemError) -> Int32 {
        // struct signalfd_siginfo has 128 bytes and begins with the number.
        let record = UnsafeMutableRawBufferPointer.allocate(byteCount: 128, alignment: 8)
        defer { record.deallocate() }
        _ = try descriptor.read(into: record)
        return Int32(bitPattern: record.load(as: UInt32.self))
    }
}
