import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import AgentCore
@testable import Qcow2Format

/// Random operations on three disks, and a crash at any change of any file: disks, journal and state folder together.
///
/// `COLDFRAME_CRASH_SEQUENCES` and `COLDFRAME_CRASH_STATES` set how many sequences and how many crashes of each (0: all);
/// `COLDFRAME_TEST_SEED` repeats a run.
@AgentActor
@Suite("A crash at any moment", .serialized)
struct CrashPropertyTests {
    /// The operations of a sequence with what was there before and after each, and where in the record it ended.
    private struct Step {
        var operation: CrashOperation
        var before: CrashMoment
        var after: CrashMoment
        var end: Int
    }

    private static func number(_ name: String, _ fallback: Int) -> Int {
        ProcessControl.environment(name).flatMap { Int($0) } ?? fallback
    }

    @Test("After the kill of an agent, and after the loss of power, all disks are before an operation or after it")
    func everyMoment() async throws {
        let first =
            ProcessControl.environment("COLDFRAME_TEST_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("crash property tests: seed \(first)")
        for sequence in 0..<UInt64(Self.number("COLDFRAME_CRASH_SEQUENCES", 1)) {
            try await run(seed: first &+ sequence)
        }
    }

    private func run(seed: UInt64) async throws {
        var generator = CrashGenerator(state: seed)
        let world = try await CrashWorld()
        let (log, start, steps) = try await record(world, &generator)
        let wanted = Self.number("COLDFRAME_CRASH_STATES", 40)
        let moments = start...log.changes.count
        let chosen = wanted == 0 ? Array(moments) : (0..<wanted).map { _ in Int.random(in: moments, using: &generator) }
        for (index, moment) in chosen.enumerated() {
            let isPowerLoss = index % 2 == 1
            let tree =
                isPowerLoss ? log.powerLoss(after: moment, using: &generator) : log.kill(after: moment)
            try tree.write(to: world.folder)
            let note = "seed \(seed): \(isPowerLoss ? "power loss" : "kill") after \(moment) of \(log.changes.count)"
            if index % 3 == 0 { try await crashAgain(world, &generator) }
            try await check(world, steps, moment, note, asksQEMU: index % 10 == 0)
        }
    }

    private func record(
        _ world: CrashWorld, _ generator: inout CrashGenerator
    ) async throws -> (CrashLog, start: Int, [Step]) {
        let recorder = try CrashRecorder(folder: world.folder)
        var steps: [Step] = []
        let start = try await world.withAgent { agent in
            let start = recorder.position
            var moment = CrashMoment(diskCount: CrashWorld.names.count)
            for number in 0..<10 {
                let operation = CrashOperation.random(number: number, moment, using: &generator)
                try await agent.run(operation)
                let after = operation.applied(to: moment)
                #expect(try agent.moment() == after, "\(operation)")
                steps.append(Step(operation: operation, before: moment, after: after, end: recorder.position))
                moment = after
            }
            return start
        }
        return (recorder.finish(), start, steps)
    }

    /// The next agent is killed, or loses power, while it recovers.
    private func crashAgain(_ world: CrashWorld, _ generator: inout CrashGenerator) async throws {
        let recorder = try CrashRecorder(folder: world.folder)
        try await world.withAgent { await $0.recovery.run() }
        let log = recorder.finish()
        let moment = Int.random(in: 0...log.changes.count, using: &generator)
        let tree =
            Bool.random(using: &generator)
            ? log.powerLoss(after: moment, using: &generator) : log.kill(after: moment)
        try tree.write(to: world.folder)
    }

    private func check(
        _ world: CrashWorld, _ steps: [Step], _ moment: Int, _ note: String, asksQEMU: Bool
    ) async throws {
        let found = try await world.withAgent { agent in
            await agent.recovery.run()
            #expect(agent.journal.pending.isEmpty, "\(note)")
            return try agent.moment()
        }
        #expect(try world.findings() == Array(repeating: LeakSweep.Findings(), count: 3), "\(note)")
        if asksQEMU { #expect(try world.complaints() == [], "\(note)") }
        if let step = steps.first(where: { $0.end > moment }) {
            let found = found.ignoring(step.operation.writtenBlocks)
            let allowed = [step.before, step.after].map { $0.ignoring(step.operation.writtenBlocks) }
            #expect(allowed.contains(found), "\(note), in \(step.operation):\n\(found)\n\(step.before)")
        } else {
            #expect(found == steps.last?.after, "\(note), behind the last operation")
        }
    }
}

/// Repeatable random numbers (SplitMix64).
struct CrashGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
