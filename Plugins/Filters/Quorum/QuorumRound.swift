import ColdframeKit
import LinuxSystem
import Synchronization

/// One request to several children of a quorum: in turn, or at once.
///
/// The thread that asks takes children itself as long as some are left, and waits only for those that others have begun with: no
/// round waits for a thread to be free, also where a child is a quorum itself.
final class QuorumRound: Sendable {
    /// For all quorums. When all are busy, rounds go on without them.
    private static let threads = BlockingPool(maximumThreadCount: 32)

    private struct State {
        /// Index in `chosen` of the next child that nobody has begun with.
        var next = 0
        var doneCount = 0
        /// By the number of the child.
        var errors: [ColdframeError?]
    }

    private let children: [QuorumChild]
    private let chosen: [Int]
    private let request: QuorumRequest
    private let state: Locked<State>
    private let isOver = ConditionVariable()

    private init(_ request: QuorumRequest, _ children: [QuorumChild], _ chosen: [Int]) {
        self.children = children
        self.chosen = chosen
        self.request = request
        state = Locked(State(errors: [ColdframeError?](repeating: nil, count: children.count)))
    }

    /// Returns how each child failed when all are done; nil where it did not, or was not asked.
    /// - Parameter chosen: numbers of the children that are asked.
    static func errors(
        of request: QuorumRequest, _ children: [QuorumChild], _ chosen: [Int], _ pace: QuorumPace
    ) -> [ColdframeError?] {
        let isAtOnce = chosen.count > 1 && pace.asksAtOnce()
        let start = SystemClock.monotonicNanoseconds()
        defer {
            if chosen.count > 1 { pace.note(SystemClock.monotonicNanoseconds() &- start, atOnce: isAtOnce) }
        }
        guard isAtOnce else {
            var errors = [ColdframeError?](repeating: nil, count: children.count)
            for index in chosen { errors[index] = children[index].attempt(request, index) }
            return errors
        }
        let round = QuorumRound(request, children, chosen)
        for _ in 1..<chosen.count {
            guard threads.offer({ round.takeChildren() }) else { break }
        }
        round.takeChildren()
        return round.end()
    }

    /// Any thread. One that comes late finds nothing left, and so does not touch the buffers of a request that is over.
    private func takeChildren() {
        while let index = takeNext() {
            let error = children[index].attempt(request, index)
            let isLast = state.withLock { state in
                state.errors[index] = error
                state.doneCount += 1
                return state.doneCount == chosen.count
            }
            if isLast { isOver.broadcast() }
        }
    }

    private func takeNext() -> Int? {
        state.withLock { state in
            guard state.next < chosen.count else { return nil }
            state.next += 1
            return chosen[state.next - 1]
        }
    }

    private func end() -> [ColdframeError?] {
        isOver.wait { self.state.withLock { $0.doneCount == self.chosen.count } }
        return state.withLock { $0.errors }
    }
}
