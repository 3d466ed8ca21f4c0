import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

/// Random commands on a graph that is in use. `COLDFRAME_SIMULATIONS` sets the number of sequences, which otherwise follows
/// from the time that they take; `COLDFRAME_TEST_SEED` repeats a run.
@AgentActor
@Suite("Simulation of jobs", .serialized)
struct JobSimulationTests {
    private static let sliceNanoseconds: UInt64 = 15_000_000_000

    @Test("Whatever is asked in whatever order: no write is lost, nothing is left, no image is damaged")
    func sequences() async throws {
        let start = SystemClock.monotonicNanoseconds()
        let first = ProcessControl.environment("COLDFRAME_TEST_SEED").flatMap { UInt64($0) } ?? start
        let count = ProcessControl.environment("COLDFRAME_SIMULATIONS").flatMap { UInt64($0) }
        print("simulation of jobs: seed \(first)")
        var number: UInt64 = 0
        while number < count ?? 1
            || (count == nil && SystemClock.monotonicNanoseconds() - start < Self.sliceNanoseconds)
        {
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
