import ColdframeKit
import LinuxSystem

/// The rules of a node, and its state. Any thread.
///
/// An event makes the rules of its kind that fit the state the active ones, in the place of those before; an event without
/// such rules leaves them. Requests fail by the first active rule that fits them. That is what QEMU does.
final class BlkdebugRules: Sendable {
    private struct Rule {
        let number: Int
        let event: BlkdebugEvent
        /// 0 for any.
        let state: Int64
        let action: Action
    }

    private enum Action {
        case fail(Failure)
        case setState(Int64)
    }

    private struct Failure {
        let kinds: Set<BlkdebugIOType>
        let errno: Int32
        /// nil for any.
        let offset: UInt64?
        let isOnce: Bool

        func fits(_ kind: BlkdebugIOType, _ range: Range<UInt64>) -> Bool {
            kinds.contains(kind) && (offset.map(range.contains) ?? true)
        }
    }

    private struct State {
        var rules: [Rule]
        var active: [Rule] = []
        var state: Int64 = 1
    }

    private let state: Locked<State>

    init(_ errors: [BlkdebugInjectErrorOptions], _ changes: [BlkdebugSetStateOptions]) {
        var rules: [Rule] = []
        for error in errors {
            let sector = error.sector.flatMap { $0 == -1 ? nil : UInt64(bitPattern: $0 &* 512) }
            let kinds: Set<BlkdebugIOType> =
                error.iotype.map { [$0] } ?? [.read, .write, .writeZeroes, .discard, .flush]
            let failure = Failure(
                kinds: kinds, errno: Int32(truncatingIfNeeded: error.errno ?? Int64(Errno.io)), offset: sector,
                isOnce: error.once ?? false)
            rules.append(
                Rule(number: rules.count, event: error.event, state: error.state ?? 0, action: .fail(failure)))
        }
        for change in changes {
            rules.append(
                Rule(
                    number: rules.count, event: change.event, state: change.state ?? 0,
                    action: .setState(change.newState)))
        }
        state = Locked(State(rules: rules))
    }

    func happened(_ event: BlkdebugEvent) {
        state.withLock { state in
            let fitting = state.rules.filter { $0.event == event && ($0.state == 0 || $0.state == state.state) }
            let failing = fitting.filter { if case .fail = $0.action { true } else { false } }
            if !failing.isEmpty { state.active = failing }
            for rule in fitting {
                // Of several the first counts.
                if case .setState(let next) = rule.action {
                    state.state = next
                    break
                }
            }
        }
    }

    /// Throws the error that the rules have for a request. A flush has an empty range.
    func check(_ kind: BlkdebugIOType, _ range: Range<UInt64> = 0..<0) throws(ColdframeError) {
        let errno: Int32 = state.withLock { state in
            for rule in state.active {
                guard case .fail(let failure) = rule.action, failure.fits(kind, range) else { continue }
                guard failure.errno != 0 else { return 0 }
                if failure.isOnce {
                    state.active.removeAll { $0.number == rule.number }
                    state.rules.removeAll { $0.number == rule.number }
                }
                return failure.errno
            }
            return 0
        }
        if errno != 0 {
            throw ColdframeError(
                .io, "A request of kind '\(kind.rawValue)' was told to fail: \(SystemError.text(errno: errno))",
                errno: errno)
        }
    }
}
