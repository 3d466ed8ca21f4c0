import ColdframeKit
import QMPWire
import Testing

@testable import AgentCore

/// A job that does what the test tells it.
@AgentActor
private final class ScriptedJob: JobDriver {
    let jobType = "snapshot-save"
    let outlivesLateCancel: Bool
    private let body: @AgentActor (any JobControl) async throws -> Void
    private(set) var calls: [String] = []

    init(
        outlivesLateCancel: Bool = false, _ body: @escaping @AgentActor (any JobControl) async throws -> Void = { _ in }
    ) {
        self.outlivesLateCancel = outlivesLateCancel
        self.body = body
    }
    func run(_ control: any JobControl) async throws { try await body(control) }
    func prepare() async throws { calls.append("prepare") }
    func commit() async { calls.append("commit") }
    func abort() async { calls.append("abort") }
    func clean() async { calls.append("clean") }
}

/// A registry whose status events are collected.
@AgentActor
private final class Bench {
    private(set) var statuses: [String] = []
    private(set) lazy var registry = JobRegistry { [weak self] _, data in
        self?.statuses.append(data["status"]?.stringValue ?? "?")
    }

    /// Suspends until the newest event is `status`.
    func reach(_ status: String) async {
        while statuses.last != status { await Task.yield() }
    }

    /// The error text of what `body` throws.
    func refusal(_ body: () async throws -> Void) async -> String? {
        do {
            try await body()
            return nil
        } catch {
            return ColdframeError(wrapping: error).message
        }
    }
}

@AgentActor
@Suite("Job registry")
struct JobRegistryTests {
    @Test("A job that succeeds sends QEMU's events in QEMU's order and stays until it is dismissed")
    func success() async throws {
        let bench = Bench()
        let job = ScriptedJob()
        try bench.registry.start(id: "j", driver: job)
        await bench.reach("concluded")
        #expect(bench.statuses == ["created", "running", "waiting", "pending", "concluded"])
        #expect(job.calls == ["prepare", "commit", "clean"])
        try bench.registry.dismiss(id: "j")
        #expect(bench.statuses.last == "null")
        #expect(bench.registry.information.isEmpty)
    }

    @Test("A job that is refused when it is made is none of its group, which can still be brought down")
    func refusedMember() async throws {
        let bench = Bench()
        let group = JobGroup()
        func make(_ id: String, speed: Int64) throws {
            _ = try bench.registry.create(
                id: id, driver: ScriptedJob(), group: group, autoFinalize: true, autoDismiss: false, speed: speed)
        }
        try make("a", speed: 0)
        let refusal = await bench.refusal { try make("b", speed: -1) }
        #expect(refusal == "Parameter 'speed' expects a non-negative value")
        await bench.registry.abort(group)
        #expect(bench.statuses == ["created", "created", "null", "aborting", "concluded", "null"])
    }

    @Test("created and running are sent before the command's reply")
    func startIsSynchronous() throws {
        let bench = Bench()
        try bench.registry.start(id: "j", driver: ScriptedJob())
        #expect(bench.statuses == ["created", "running"])
    }

    @Test("A job that fails aborts and keeps its error")
    func failure() async throws {
        let bench = Bench()
        let job = ScriptedJob { _ in throw ColdframeError(.io, "the disk is full") }
        try bench.registry.start(id: "j", driver: job)
        await bench.reach("concluded")
        #expect(bench.statuses == ["created", "running", "aborting", "concluded"])
        #expect(job.calls == ["abort", "clean"])
        #expect(bench.registry.information.first?.error == "the disk is full")
    }

    @Test("A cancel that comes when the work is done cancels the job, as in QEMU, unless what is whole is kept")
    func lateCancel() async throws {
        for outlives in [false, true] {
            let bench = Bench()
            let job = ScriptedJob(outlivesLateCancel: outlives) { _ in try await bench.registry.cancel(id: "j") }
            try bench.registry.start(id: "j", driver: job)
            await bench.reach("concluded")
            let end = outlives ? ["waiting", "pending", "concluded"] : ["aborting", "concluded"]
            #expect(bench.statuses == ["created", "running"] + end)
            #expect(job.calls == (outlives ? ["prepare", "commit", "clean"] : ["abort", "clean"]))
            #expect(bench.registry.information[0].error == (outlives ? nil : "Operation canceled"))
        }
    }

    @Test("A paused job that is cancelled shows running before aborting")
    func cancelWhilePaused() async throws {
        let bench = Bench()
        let job = ScriptedJob { control in
            while true {
                try await control.checkpoint()
                await Task.yield()
            }
        }
        try bench.registry.start(id: "j", driver: job)
        try bench.registry.pause(id: "j")
        await bench.reach("paused")
        try await bench.registry.cancel(id: "j")
        await bench.reach("concluded")
        #expect(bench.statuses == ["created", "running", "paused", "running", "aborting", "concluded"])
        #expect(bench.registry.information.first?.error == "Operation canceled")
    }

    @Test("Pause and resume, and what they refuse")
    func pauseAndResume() async throws {
        let bench = Bench()
        let job = ScriptedJob { control in
            while true {
                try await control.checkpoint()
                await Task.yield()
            }
        }
        try bench.registry.start(id: "j", driver: job)
        #expect(
            await bench.refusal { try bench.registry.resume(id: "j") } == "Can't resume a job that was not paused")
        try bench.registry.pause(id: "j")
        #expect(await bench.refusal { try bench.registry.pause(id: "j") } == "Job is already paused")
        await bench.reach("paused")
        try bench.registry.resume(id: "j")
        #expect(bench.statuses.last == "running")
        await bench.registry.cancelAll()
    }

    @Test("A job waits in pending when it is not finalized by itself, and can be cancelled there")
    func manualFinalize() async throws {
        let bench = Bench()
        try bench.registry.start(id: "a", driver: ScriptedJob(), autoFinalize: false)
        await bench.reach("pending")
        try await bench.registry.finalize(id: "a")
        #expect(bench.statuses.last == "concluded")
        try bench.registry.start(id: "b", driver: ScriptedJob(), autoFinalize: false)
        await bench.reach("pending")
        try await bench.registry.cancel(id: "b")
        #expect(bench.statuses.suffix(2) == ["aborting", "concluded"])
    }

    @Test("A job that dismisses itself is gone")
    func autoDismiss() async throws {
        let bench = Bench()
        try bench.registry.start(id: "j", driver: ScriptedJob(), autoDismiss: true)
        await bench.reach("null")
        #expect(bench.registry.information.isEmpty)
    }

    @Test("Ids are checked with QEMU's texts")
    func identifiers() async throws {
        let bench = Bench()
        try bench.registry.start(id: "a", driver: ScriptedJob())
        await bench.reach("concluded")
        let start: (String?) async -> String? = { id in
            await bench.refusal { try bench.registry.start(id: id, driver: ScriptedJob()) }
        }
        #expect(await start("a") == "Job ID 'a' already in use")
        #expect(await start("") == "Invalid job ID ''")
        #expect(await start("1a") == "Invalid job ID '1a'")
        #expect(await start(nil) == "An explicit job ID is required")
        #expect(await bench.refusal { try bench.registry.pause(id: "zz") } == "Job not found")
        #expect(
            await bench.refusal { try await bench.registry.complete(id: "a") }
                == "Job 'a' in state 'concluded' cannot accept command verb 'complete'")
    }
}

/// A job whose commit takes as long as the test wants.
@AgentActor
private final class SlowCommit: JobDriver {
    let jobType = "create"
    private(set) var calls: [String] = []
    private var continuation: CheckedContinuation<Void, Never>?
    func run(_ control: any JobControl) async throws {}
    func commit() async {
        calls.append("commit")
        await withCheckedContinuation { continuation = $0 }
    }
    func abort() async { calls.append("abort") }
    func letGo() { continuation?.resume() }
}

@AgentActor
@Suite("Job registry: verbs at awkward moments")
struct JobMomentTests {
    @Test("No verb comes between a job's commit and its end")
    func verbsDuringCommit() async throws {
        let bench = Bench()
        let job = SlowCommit()
        try bench.registry.start(id: "j", driver: job)
        await bench.reach("pending")
        while job.calls.isEmpty { await Task.yield() }
        #expect(
            await bench.refusal { try await bench.registry.cancel(id: "j") }
                == "Job 'j' in state 'pending' cannot accept command verb 'cancel'")
        #expect(
            await bench.refusal { try await bench.registry.finalize(id: "j") }
                == "Job 'j' in state 'pending' cannot accept command verb 'finalize'")
        job.letGo()
        await bench.reach("concluded")
        #expect(job.calls == ["commit"])
    }

    @Test("When the agent ends no job begins any more")
    func ending() async throws {
        let bench = Bench()
        await bench.registry.cancelAll()
        #expect(
            await bench.refusal { try bench.registry.start(id: "j", driver: ScriptedJob()) } == "The agent is ending")
    }

    @Test("A job that counts nothing goes from 0 of 1 to 1 of 1")
    func progress() async throws {
        let bench = Bench()
        try bench.registry.start(id: "j", driver: ScriptedJob())
        #expect(bench.registry.information.first?.totalProgress == 1)
        #expect(bench.registry.information.first?.currentProgress == 0)
        await bench.reach("concluded")
        #expect(bench.registry.information.first?.currentProgress == 1)
    }
}
