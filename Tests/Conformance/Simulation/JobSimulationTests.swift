import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

/// Random commands on a graph that is in use: as many sequences as `COLDFRAME_SIMULATIONS` says, none without it, since it
/// is not known to be free of rare complaints. `COLDFRAME_TEST_SEED` repeats a run.
@AgentActor
@Suite("Simulation of jobs", .serialized, .enabled(if: ProcessControl.environment("COLDFRAME_SIMULATIONS") != nil))
struct JobSimulationTests {
    @Test("Whatever is asked in whatever order: no write is lost, nothing is left, no image is damaged")
    func sequences() async throws {
        let first =
            ProcessControl.environment("COLDFRAME_TEST_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        let count = ProcessControl.environment("COLDFRAME_SIMULATIONS").flatMap { UInt64($0) } ?? 0
        print("simulation of jobs: seed \(first)")
        var number: UInt64 = 0
        while number < count {
            let simulation = try JobSimulation(seed: first &+ number)
            try await simulation.run(commandCount: 120)
            guard simulation.complaints.isEmpty else {
                Issue.record(
                    "seed \(first &+ number): \(simulation.complaints)\n\(simulation.log.joined(separator: "\n"))")
                return
            }
            number += 1
        }
        print("simulation of jobs: \(number) sequences")
    }
}

/// Numbers that a seed repeats.
struct SplitMix {
    var state: UInt64

    mutating func next(below limit: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return Int((mixed ^ (mixed >> 31)) % UInt64(limit))
    }
}
