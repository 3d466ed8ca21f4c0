import CLinux
import Glibc

/// An `eventfd(2)`: one thread wakes another that waits in `poll`.
public final class EventDescriptor: Sendable {
    private let descriptor: Descriptor

    public init() throws(SystemError) {
        descriptor = Descriptor(owning: try SystemCall.run("eventfd") { cf_eventfd() })
    }

    /// For `pollDescriptors`: readable once signalled, until drained.
    public var raw: Int32 { descriptor.raw }

    /// Makes it readable. Any thread; never blocks.
    public func signal() {
        var one: UInt64 = 1
        // EAGAIN means that the counter is full, hence readable already.
        while Glibc.write(descriptor.raw, &one, 8) == -1, errno == EINTR {}
    }

    /// Makes it unreadable. Returns whether it was signalled since the last time.
    @discardableResult
    public func drain() -> Bool {
        var count: UInt64 = 0
        while true {
            if Glibc.read(descriptor.raw, &count, 8) == 8 { return true }
            if errno != EINTR { return false }
        }
    }
}

/// `pipe2(2)` with O_CLOEXEC: what is written to the second end comes out of the first.
public func pipe() throws(SystemError) -> (readEnd: Descriptor, writeEnd: Descriptor) {
    Signals.ignoreBrokenPipe()
    var ends: [Int32] = [-1, -1]
    _ = try SystemCall.run("pipe") { cf_pipe(&ends) }
    return (Descriptor(owning: ends[0]), Descriptor(owning: ends[1]))
}
