import LinuxSystem

/// Parts of a disk that somebody is at, so that two do not change the same copy at once. Any thread.
public final class RangeReservations: Sendable {
    private let held = Locked<[Range<UInt64>]>([])
    private let changed = ConditionVariable()

    public init() {}

    /// Waits until nobody holds a part that overlaps, and holds this one. Nobody may ask for a second one meanwhile.
    public func reserve(_ range: Range<UInt64>) {
        while !take(range) {
            changed.wait { self.held.withLock { !$0.contains { $0.overlaps(range) } } }
        }
    }

    private func take(_ range: Range<UInt64>) -> Bool {
        held.withLock { held in
            guard !held.contains(where: { $0.overlaps(range) }) else { return false }
            held.append(range)
            return true
        }
    }

    public func release(_ range: Range<UInt64>) {
        held.withLock { held in
            if let index = held.firstIndex(of: range) { held.remove(at: index) }
        }
        changed.broadcast()
    }
}
