import Glibc

/// Events of `poll(2)`.
public struct PollEvents: OptionSet, Sendable {
    public let rawValue: Int16
    public init(rawValue: Int16) { self.rawValue = rawValue }
    public static let readable = PollEvents(rawValue: Int16(POLLIN))
    public static let writable = PollEvents(rawValue: Int16(POLLOUT))
    /// Comes without being asked for.
    public static let error = PollEvents(rawValue: Int16(POLLERR))
    /// The other end is gone; comes without being asked for.
    public static let hangUp = PollEvents(rawValue: Int16(POLLHUP))
    /// Not an open descriptor; comes without being asked for.
    public static let invalid = PollEvents(rawValue: Int16(POLLNVAL))
}

/// `poll(2)` of several descriptors. Returns what happened to each, in order; all empty after the timeout. nil waits
/// for ever. An interruption by a signal does not lengthen the wait.
public func pollDescriptors(
    _ descriptors: [(Int32, PollEvents)], timeoutMilliseconds: Int?
) throws(SystemError) -> [PollEvents] {
    var entries = descriptors.map { pollfd(fd: $0.0, events: $0.1.rawValue, revents: 0) }
    try pollEntries(&entries, timeoutMilliseconds)
    return entries.map { PollEvents(rawValue: $0.revents) }
}

private func pollEntries(_ entries: inout [pollfd], _ timeoutMilliseconds: Int?) throws(SystemError) {
    let deadline = timeoutMilliseconds.map {
        SystemClock.monotonicNanoseconds() &+ UInt64(clamping: $0) &* 1_000_000
    }
    _ = try SystemCall.run("poll") {
        var wait: Int32 = -1
        if let deadline {
            let now = SystemClock.monotonicNanoseconds()
            wait = now >= deadline ? 0 : Int32(clamping: (deadline - now + 999_999) / 1_000_000)
        }
        return poll(&entries, nfds_t(entries.count), wait)
    }
}

extension Descriptor {
    /// `poll(2)` of this descriptor; empty after the timeout. nil waits for ever.
    public func poll(for events: PollEvents, timeoutMilliseconds: Int? = nil) throws(SystemError) -> PollEvents {
        try pollDescriptors([(raw, events)], timeoutMilliseconds: timeoutMilliseconds)[0]
    }
}
