import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

/// Random commands on a graph that is in use, one sequence after the other: as many as `COLDFRAME_SIMULATIONS` says, or for
/// `COLDFRAME_SIMULATION_SECONDS` at most. `COLDFRAME_TEST_SEED` repeats a run: a sequence's seed is told when it fails. Without
/// them it is a few sequences, always the same.
@AgentActor
@Suite("Simulation of jobs", .serialized)
struct JobSimulationTests {
    private static func number(_ name: String) -> UInt64? {
        ProcessControl.environment(name).flatMap { UInt64($0) }
    }

    @Test(
        "Whatever is asked in whatever order: jobs go QEMU's ways, no write is lost, nothing is left, no image is damaged"
    )
    func sequences() async throws {
        let wanted = Self.number("COLDFRAME_SIMULATIONS")
        let first = Self.number("COLDFRAME_TEST_SEED") ?? (wanted == nil ? 2000 : SystemClock.monotonicNanoseconds())
        let count = wanted ?? 15
        let seconds = Self.number("COLDFRAME_SIMULATION_SECONDS") ?? 1 << 32
        print("simulation of jobs: seed \(first)")
        let end = SystemClock.monotonicNanoseconds() + seconds * 1_000_000_000
        var number: UInt64 = 0
        var summary: [String: Int] = [:]
        defer {
            let words = summary.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            print("simulation of jobs: \(number) sequences from seed \(first): \(words)")
        }
        while number < count, SystemClock.monotonicNanoseconds() < end {
            let simulation = try JobSimulation(seed: first &+ number)
            try await simulation.run(commandCount: 200)
            summary.merge(simulation.summary, uniquingKeysWith: +)
            guard simulation.complaints.isEmpty else {
                Issue.record(
                    "seed \(first &+ number): \(simulation.complaints)\n\(simulation.log.joined(separator: "\n"))")
                return
            }
            number += 1
        }
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
