import LinuxSystem

/// What several files of one image were told, in one order: a crash in the middle of an operation over both finds each
/// as that order left it.
public final class CallLog: Sendable {
    public struct Entry: Sendable {
        public let file: String
        public let call: RecordingDriver.Call
    }

    private let recorded = Locked<[Entry]>([])

    public init() {}

    public var entries: [Entry] { recorded.withLock { $0 } }
    public var count: Int { recorded.withLock { $0.count } }

    func append(_ file: String, _ call: RecordingDriver.Call) {
        recorded.withLock { $0.append(Entry(file: file, call: call)) }
    }
}
