import ColdframeKit
import LinuxSystem

/// All of its steps, or none.
///
/// The phases are QEMU's: everything is checked, the nodes are drained, the steps are cut in order; if one fails, all
/// that were cut, and the one that failed, are aborted in reverse order. What differs from QEMU is that the drain may
/// end before the commit: a snapshot's disks go on while its RAM streams.
@AgentActor
final class Transaction {
    private let steps: [any TransactionStep]
    /// Cut behind the others, in order.
    private let companions: [any TransactionStep]
    private var all: [any TransactionStep] { steps + companions }
    private let graph: Graph
    private var drained: GraphDrain?

    init(_ steps: [any TransactionStep], with companions: [any TransactionStep] = [], graph: Graph) {
        self.steps = steps
        self.companions = companions
        self.graph = graph
    }

    /// From the first phase to the last, as the command `transaction` does it. `journal` makes it whole or gone if the
    /// agent dies meanwhile.
    func run(_ journal: TransactionJournal) async throws {
        try await check()
        do {
            try await journal.begin(steps)
        } catch {
            await clean()
            throw error
        }
        var isOver = true
        do {
            try await drain(deadlineNanoseconds: nil)
            defer { letGo() }
            try await cut(concurrently: false)
            do {
                try await journal.commit(changesGraph ? graph.shape : nil)
                // While nobody can write there yet.
                if changesGraph { isOver = try await record(journal) }
            } catch {
                try await abort()
                throw error
            }
            try? FaultPoint.transactionRecorded.pass()
            await commit()
            // What the commit has made read-only.
            if changesGraph, isOver { try? await graph.recordShape() }
        } catch {
            await journal.end(isOver: isUndone)
            throw error
        }
        await journal.end(isOver: isOver)
    }

    /// False if the agent's record could not be written, but the journal says what it would say.
    private func record(_ journal: TransactionJournal) async throws -> Bool {
        do {
            try await graph.recordShape()
            return true
        } catch {
            guard journal.hasIntent else { throw error }
            return false
        }
    }

    private var changesGraph: Bool { all.contains(where: \.changesGraph) }

    /// Nothing of any step is left.
    var isUndone: Bool { all.allSatisfy(\.isUndone) }

    /// After a throw the transaction is over.
    func check() async throws {
        do {
            for step in all { try await step.check() }
        } catch {
            await clean()
            throw error
        }
    }

    private func clean() async {
        for step in all { await step.clean() }
    }

    /// Closes the gates of all nodes of all steps and of those above them. Names the node that keeps it waiting past
    /// the deadline, and leaves all gates open then; the transaction is over.
    func drain(deadlineNanoseconds: UInt64?) async throws {
        let drain = GraphDrain(all.flatMap(\.drainedNodes))
        if let name = await drain.begin(deadlineNanoseconds: deadlineNanoseconds) {
            await clean()
            throw ColdframeError(.timedOut, "Node '\(name)' still had requests in flight when the deadline passed")
        }
        drained = drain
    }

    /// Requests that have come to the drained gates so far, for those who must know whether one came meanwhile.
    var arrivals: UInt64 { drained?.arrivals ?? 0 }

    /// Opens the gates.
    func letGo() {
        drained?.end()
        drained = nil
    }

    /// Cuts all steps; after a throw nothing of them is left, or the error says what is. Concurrent cuts are for steps
    /// on different nodes whose order does not matter.
    func cut(concurrently: Bool) async throws {
        do {
            if concurrently { try await cutAll() }
            for (index, step) in all.enumerated() where !concurrently || index >= steps.count {
                do {
                    try await step.cut()
                } catch {
                    try await abort(Array(all[...index]), because: error)
                }
            }
        } catch {
            await clean()
            throw error
        }
    }

    private func cutAll() async throws {
        let cuts = steps.map { step in Task { @AgentActor in try await step.cut() } }
        var failure: (any Error)?
        for cut in cuts {
            if case .failure(let error) = await cut.result { failure = failure ?? error }
        }
        if let failure { try await abort(steps, because: failure) }
    }

    /// Makes all cuts final.
    func commit() async {
        for step in all { await step.commit() }
        await clean()
    }

    /// Undoes all cuts.
    func abort() async throws {
        var failure: (any Error)?
        do { try await undo(all) } catch { failure = error }
        await clean()
        if let failure { throw failure }
    }

    private func abort(_ cut: [any TransactionStep], because cause: any Error) async throws {
        do {
            try await undo(cut)
        } catch {
            let cause = ColdframeError(wrapping: cause)
            throw ColdframeError(
                cause.code, "\(cause.message); undoing the rest failed too: \(ColdframeError(wrapping: error).message)",
                errno: cause.errno)
        }
        throw cause
    }

    /// Aborts in reverse order; goes on after a failure and throws the first.
    private func undo(_ cut: [any TransactionStep]) async throws {
        var failure: (any Error)?
        for step in cut.reversed() {
            do { try await step.abort() } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }
}
