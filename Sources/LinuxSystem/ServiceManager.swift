import CLinux

/// What a service manager is told, as `sd_notify(3)` describes it. Without one nothing happens.
public struct ServiceManager: Sendable {
    private let socketPath: String
    /// A sign of life must come within this time; nil if none is waited for.
    public let watchdogMicroseconds: UInt64?

    /// The manager that started this process, by `NOTIFY_SOCKET` and `WATCHDOG_USEC`; nil if none waits for word.
    public init?() {
        guard let path = ProcessControl.environment("NOTIFY_SOCKET"), path.hasPrefix("/") || path.hasPrefix("@") else {
            return nil
        }
        socketPath = path
        let isForUs = ProcessControl.environment("WATCHDOG_PID").map { $0 == "\(ProcessControl.currentPID)" } ?? true
        watchdogMicroseconds = isForUs ? ProcessControl.environment("WATCHDOG_USEC").flatMap(UInt64.init) : nil
    }

    /// Everything is started.
    public func ready(status: String) { tell("READY=1\nSTATUS=\(status)") }
    /// The end has begun.
    public func stopping() { tell("STOPPING=1") }
    public func isAlive() { tell("WATCHDOG=1") }

    /// A manager that is gone needs no word.
    private func tell(_ text: String) {
        let bytes = Array(text.utf8)
        _ = try? SystemCall.run("sendto", socketPath) { cf_send_datagram(socketPath, bytes, bytes.count) }
    }
}
