import LinuxSystem
import Synchronization

/// Lets the requests of a group's members pass one by one as the limits allow. Any thread.
///
/// A request that has to wait keeps its thread, so there are never more of them than threads that serve requests. Of those that
/// wait in one direction one is due: it sleeps until its time, the others sleep until they are due. Who is due goes round among
/// the members, so that each gets the same share whatever it asks for.
final class ThrottleQueue: Sendable {
    /// Stands for one node of the group.
    final class Member: Sendable {}

    /// A request that waits.
    private final class Ticket: Sendable {
        enum Phase: Int { case waiting, due, passed }
        let byteCount: UInt64
        let changed = ConditionVariable()
        private let state = Atomic<Int>(Phase.waiting.rawValue)

        init(byteCount: UInt64) { self.byteCount = byteCount }

        var phase: Phase { Phase(rawValue: state.load(ordering: .acquiring)) ?? .waiting }

        func move(to phase: Phase) {
            state.store(phase.rawValue, ordering: .releasing)
            changed.broadcast()
        }
    }

    private struct Seat {
        let member: Member
        /// Drains that last: its requests pass at once.
        var releaseCount = 0
        /// By direction, in the order in which they came.
        var waiting: [[Ticket]] = [[], []]
    }

    private struct State {
        var buckets: ThrottleBuckets
        var seats: [Seat] = []
        /// By direction: the request that is due. There is one whenever any waits.
        var due: [Ticket?] = [nil, nil]
        /// By direction: the member whose request was due last.
        var turn: [Member?] = [nil, nil]
    }

    private let clock: any WaitClock
    private let state: Locked<State>
    /// Counts changes of the limits: who waits by the old ones looks again.
    private let changes = Atomic<UInt64>(0)

    init(_ settings: ThrottleSettings, clock: any WaitClock) {
        self.clock = clock
        state = Locked(State(buckets: ThrottleBuckets(settings, nanoseconds: clock.nanoseconds)))
    }

    // MARK: Members

    var memberCount: Int { state.withLock { $0.seats.count } }

    func join() -> Member {
        let member = Member()
        state.withLock { $0.seats.append(Seat(member: member)) }
        return member
    }

    /// No request of its own waits any more.
    func leave(_ member: Member) {
        state.withLock { state in
            state.seats.removeAll { $0.member === member }
            for direction in state.turn.indices where state.turn[direction] === member { state.turn[direction] = nil }
        }
    }

    // MARK: Passing

    /// Blocks the thread until the request may pass, and counts it.
    func pass(_ member: Member, _ direction: ThrottleBuckets.Direction, byteCount: UInt64) {
        guard let ticket = enter(member, direction, byteCount) else { return }
        while true {
            ticket.changed.wait { ticket.phase != .waiting }
            let change = changes.load(ordering: .acquiring)
            guard let wait = tryToPass(ticket, direction) else { return }
            clock.wait(on: ticket.changed, nanoseconds: wait) {
                ticket.phase != .due || changes.load(ordering: .acquiring) != change
            }
        }
    }

    /// nil if it has passed.
    private func enter(_ member: Member, _ direction: ThrottleBuckets.Direction, _ byteCount: UInt64) -> Ticket? {
        state.withLock { state in
            guard let index = state.seats.firstIndex(where: { $0.member === member }) else { return nil }
            let isFree = state.seats[index].releaseCount > 0
            if isFree || (state.due[direction.rawValue] == nil && wait(direction, &state) == 0) {
                state.buckets.account(direction, byteCount: byteCount)
                return nil
            }
            let ticket = Ticket(byteCount: byteCount)
            state.seats[index].waiting[direction.rawValue].append(ticket)
            if state.due[direction.rawValue] == nil { Self.makeNextDue(direction, &state) }
            return ticket
        }
    }

    private func wait(_ direction: ThrottleBuckets.Direction, _ state: inout State) -> UInt64 {
        state.buckets.waitNanoseconds(direction, nanoseconds: clock.nanoseconds)
    }

    /// nil if it has passed, otherwise how long it still has to wait.
    private func tryToPass(_ ticket: Ticket, _ direction: ThrottleBuckets.Direction) -> UInt64? {
        state.withLock { state in
            if ticket.phase == .passed { return nil }
            let wait = wait(direction, &state)
            guard wait == 0 else { return wait }
            for index in state.seats.indices where state.seats[index].waiting[direction.rawValue].first === ticket {
                state.seats[index].waiting[direction.rawValue].removeFirst()
            }
            state.buckets.account(direction, byteCount: ticket.byteCount)
            Self.makeNextDue(direction, &state)
            return nil
        }
    }

    /// The first request of the next member that has one, in turn; nobody if none has.
    private static func makeNextDue(_ direction: ThrottleBuckets.Direction, _ state: inout State) {
        let lane = direction.rawValue
        state.due[lane] = nil
        let last = state.seats.firstIndex { $0.member === state.turn[lane] } ?? -1
        for step in 1...max(1, state.seats.count) where !state.seats.isEmpty {
            let seat = state.seats[(last + step) % state.seats.count]
            guard let ticket = seat.waiting[lane].first else { continue }
            state.turn[lane] = seat.member
            state.due[lane] = ticket
            ticket.move(to: .due)
            return
        }
    }

    // MARK: Changes

    /// Other limits, from now on; what has passed before is forgotten.
    func set(_ settings: ThrottleSettings) {
        let due = state.withLock { state in
            state.buckets = ThrottleBuckets(settings, nanoseconds: clock.nanoseconds)
            return state.due
        }
        changes.add(1, ordering: .releasing)
        for ticket in due { ticket?.changed.broadcast() }
    }

    /// The member's requests pass at once, those that wait too, until `endRelease`. Nests.
    func beginRelease(_ member: Member) {
        state.withLock { state in
            guard let index = state.seats.firstIndex(where: { $0.member === member }) else { return }
            state.seats[index].releaseCount += 1
            for direction in ThrottleBuckets.Direction.allCases {
                let lane = direction.rawValue
                let tickets = state.seats[index].waiting[lane]
                state.seats[index].waiting[lane] = []
                for ticket in tickets {
                    state.buckets.account(direction, byteCount: ticket.byteCount)
                    ticket.move(to: .passed)
                }
                if let due = state.due[lane], due.phase == .passed { Self.makeNextDue(direction, &state) }
            }
        }
    }

    func endRelease(_ member: Member) {
        state.withLock { state in
            guard let index = state.seats.firstIndex(where: { $0.member === member }) else { return }
            state.seats[index].releaseCount -= 1
        }
    }
}
