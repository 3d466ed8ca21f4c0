import Synchronization

/// Whether the children of a quorum answer requests of a kind sooner if they are asked at once or in turn, by what was seen of late.
/// Any thread.
final class QuorumPace: Sendable {
    /// Rounds that take less in turn stay so: to wake another thread costs as much (7 to 45 µs, as measured on two processors).
    static let worthNanoseconds: UInt64 = 60_000
    /// One round in so many goes the way that was slower, to see whether it still is.
    private static let trialInterval: UInt64 = 32

    private let worthNanoseconds: UInt64
    private let inTurn = RecentDuration()
    private let atOnce = RecentDuration()
    private let count = Atomic<UInt64>(0)

    /// - Parameter worthNanoseconds: with 0 children are asked at once always.
    init(worthNanoseconds: UInt64) { self.worthNanoseconds = worthNanoseconds }

    func asksAtOnce() -> Bool {
        guard worthNanoseconds > 0 else { return true }
        guard inTurn.nanoseconds >= worthNanoseconds else { return false }
        let isTrial = count.add(1, ordering: .relaxed).newValue % Self.trialInterval == 0
        return (atOnce.nanoseconds < inTurn.nanoseconds) != isTrial
    }

    func note(_ nanoseconds: UInt64, atOnce isAtOnce: Bool) { (isAtOnce ? atOnce : inTurn).note(nanoseconds) }
}

/// How long something takes as a rule, of late; 0 if it was never seen. Of two that come together one may not count.
final class RecentDuration: Sendable {
    private let typical = Atomic<UInt64>(0)

    var nanoseconds: UInt64 { typical.load(ordering: .relaxed) }

    /// One that takes long, as each does now and then, counts for twice what is usual.
    func note(_ nanoseconds: UInt64) {
        let before = self.nanoseconds
        guard before > 0 else { return typical.store(nanoseconds, ordering: .relaxed) }
        let next =
            nanoseconds < before
            ? before - (before - nanoseconds) / 4 : before + (min(nanoseconds, before * 2) - before) / 8
        // Rounded down it would never rise again.
        typical.store(max(next, 16), ordering: .relaxed)
    }
}
