import QAPI
import Testing

@testable import AgentCore

@Suite("Job tables")
struct JobTableTests {
    @Test("Nothing leaves paused but to running, and standby but to ready")
    func pausedGoesToRunningOnly() {
        #expect(JobTable.successors(of: .paused) == [.running])
        #expect(JobTable.successors(of: .standby) == [.ready])
    }

    @Test("A concluded job can only be dismissed")
    func concludedAcceptsDismissOnly() {
        let accepted = JobVerb.allCases.filter { JobTable.accepts($0, in: .concluded) }
        #expect(accepted == [.dismiss])
    }

    @Test("Cancel is accepted everywhere but at the end", arguments: JobStatus.allCases)
    func cancel(_ status: JobStatus) {
        let refused: Set<JobStatus> = [.undefined, .aborting, .concluded, .null]
        #expect(JobTable.accepts(.cancel, in: status) == !refused.contains(status))
    }

    @Test("Every state but null leads somewhere, and to null in the end", arguments: JobStatus.allCases)
    func everyStateEnds(_ status: JobStatus) {
        var reachable: Set<JobStatus> = [status]
        var queue = [status]
        while let next = queue.popLast() {
            for successor in JobTable.successors(of: next) where reachable.insert(successor).inserted {
                queue.append(successor)
            }
        }
        #expect(reachable.contains(.null))
    }
}
