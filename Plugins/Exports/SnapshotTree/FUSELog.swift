import CFuse3
import Glibc
import LinuxSystem
import Logging

/// Where libfuse's messages and those of the callbacks go: the agent's log, not standard error.
enum FUSELog {
    private static let logger = Locked<Logger?>(nil)
    private static let lastMessage = Locked<String?>(nil)

    /// Sends messages to `logger` from now on.
    static func install(_ logger: Logger) {
        self.logger.withLock { $0 = logger }
        fuse_set_log_func(receiveMessage)
    }

    /// A read or open that failed.
    static func error(_ message: String) {
        logger.withLock { $0 }?.error("\(message)")
    }

    static func warning(_ message: String) {
        logger.withLock { $0 }?.warning("\(message)")
    }

    /// What libfuse said last, since it returns only that something failed.
    static func takeLastMessage() -> String? {
        lastMessage.withLock { message in
            defer { message = nil }
            return message
        }
    }

    fileprivate static func receive(_ text: String, isError: Bool) {
        lastMessage.withLock { $0 = text }
        if isError { error("libfuse: \(text)") }
    }
}

/// A C callback: it may run on any thread.
private func receiveMessage(level: fuse_log_level, format: UnsafePointer<CChar>?, arguments: CVaListPointer?) {
    guard let format, let arguments else { return }
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
        guard let base = buffer.baseAddress, vsnprintf(base, buffer.count, format, arguments) > 0 else { return }
        var text = String(cString: base)
        while text.last == "\n" { text.removeLast() }
        if text.hasPrefix("fuse: ") { text.removeFirst(6) }
        FUSELog.receive(text, isError: level.rawValue <= FUSE_LOG_ERR.rawValue)
    }
}
