import LinuxSystem
import Synchronization

/// The counted, nesting gate in front of a node: requests from outside pass it, a drain closes it.
///
/// Workers enter and leave on their own threads; when it is closed they wait there. Whoever drains suspends until the
/// last request inside has left; it never blocks. Passing an open gate costs two atomic operations.
public final class RequestGate: Sendable {
    private let state = Locked(State())
    private let reopened = ConditionVariable()
    /// Number of requests that have come to the gate since it was made, open or closed.
    private let arrivalCount = Atomic<UInt64>(0)
    /// In flight in the low bits; `closedBit` set while any drain lasts.
    private let word = Atomic<UInt64>(0)
    private static let closedBit: UInt64 = 1 << 63

    private struct State {
        var drainDepth = 0
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    public init() {}

    /// Requests inside now.
    public var inFlightCount: Int { Int(word.load(ordering: .acquiring) & ~Self.closedBit) }
    /// A drain lasts.
    public var isClosed: Bool { word.load(ordering: .acquiring) & Self.closedBit != 0 }
    /// Requests that have come so far. Two equal readings with `inFlightCount` 0 between them mean quiet.
    public var arrivals: UInt64 { arrivalCount.load(ordering: .acquiring) }

    /// Enters, waiting while a drain lasts. Every `enter` is followed by one `leave` on any thread.
    public func enter() {
        arrivalCount.add(1, ordering: .acquiringAndReleasing)
        while true {
            let old = word.load(ordering: .relaxed)
            if old & Self.closedBit == 0 {
                if word.weakCompareExchange(expected: old, desired: old + 1, ordering: .acquiringAndReleasing).exchanged
                {
                    return
                }
            } else {
                reopened.wait { self.word.load(ordering: .acquiring) & Self.closedBit == 0 }
            }
        }
    }

    public func leave() {
        let now = word.subtract(1, ordering: .acquiringAndReleasing).newValue
        if now == Self.closedBit { wakeDrains() }
    }

    private func wakeDrains() {
        let waiters = state.withLock { state in
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Closes the gate and suspends until nobody is inside. Nests; pair with `endDrain`.
    public func beginDrain() async {
        close()
        _ = await untilIdle(deadlineNanoseconds: nil)
    }

    /// The same with a deadline on `SystemClock`'s monotonic clock. False: somebody was still inside, and the gate is as
    /// it was before.
    public func beginDrain(deadlineNanoseconds: UInt64) async -> Bool {
        close()
        if await untilIdle(deadlineNanoseconds: deadlineNanoseconds) { return true }
        endDrain()
        return false
    }

    /// Suspends until nobody is inside; the gate is closed. False if the deadline, if there is one, came first.
    public func untilIdle(deadlineNanoseconds: UInt64?) async -> Bool {
        guard let deadlineNanoseconds else {
            while inFlightCount > 0 { await untilWoken() }
            return true
        }
        guard inFlightCount > 0 else { return true }
        let alarm = Task {
            let now = SystemClock.monotonicNanoseconds()
            if deadlineNanoseconds > now { try? await Task.sleep(nanoseconds: deadlineNanoseconds - now) }
            // Again and again: a wake that comes between the look at the clock and the wait would be lost.
            while !Task.isCancelled {
                wakeDrains()
                try? await Task.sleep(nanoseconds: 1_000_000)
            }
        }
        defer { alarm.cancel() }
        while inFlightCount > 0 {
            if SystemClock.monotonicNanoseconds() >= deadlineNanoseconds { return false }
            await untilWoken()
        }
        return true
    }

    /// Begins a drain without waiting for those inside: for a gate that nobody has passed yet, or with `untilIdle`.
    /// Pair with `endDrain`.
    public func close() {
        state.withLock { state in
            state.drainDepth += 1
            word.bitwiseOr(Self.closedBit, ordering: .acquiringAndReleasing)
        }
    }

    /// Suspends until the last request has left, or an alarm has gone off; the caller looks which.
    private func untilWoken() async {
        await withCheckedContinuation { continuation in
            state.withLock { $0.waiters.append(continuation) }
            // A request may have left between the caller's check and the append.
            if inFlightCount == 0 { wakeDrains() }
        }
    }

    /// Opens the gate when the last drain ends.
    public func endDrain() {
        let opened = state.withLock { state in
            precondition(state.drainDepth > 0, "endDrain without beginDrain")
            state.drainDepth -= 1
            if state.drainDepth == 0 {
                word.bitwiseAnd(~Self.closedBit, ordering: .acquiringAndReleasing)
                return true
            }
            return false
        }
        if opened { reopened.broadcast() }
    }
}
