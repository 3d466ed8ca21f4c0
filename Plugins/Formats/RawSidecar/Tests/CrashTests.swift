import ConformanceKit
import LinuxSystem
import Testing

@testable import RawSidecarFormat

/// The order of writes: the image is opened as it is after every single call, and after random losses of what was not
/// flushed.
@Suite struct CrashTests {
    private let campaign = CrashCampaign(
        subject: .rawSidecar(), byteCount: 10 * 16384 + 512,
        operations: [
            .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2), .flush,
            .create(state: 30_000), .write(0..<4096, seed: 3), .zero(4096..<20_000, .mayUnmap), .flush,
            .revert(choice: 0), .write(100..<9_000, seed: 4), .create(state: nil), .delete(choice: 0),
            .discard(0..<60_000), .flush, .resize(40_000), .create(state: nil), .resize(120_000),
            .write(30_000..<110_000, seed: 5), .delete(choice: 1), .write(0..<100_000, seed: 6), .revert(choice: 1),
            .delete(choice: 0), .flush,
        ])

    @Test func everyPrefixIsTheOldOrTheNewImage() throws {
        try campaign.runKills()
    }

    /// `COLDFRAME_CRASH_ROUNDS` sets the number of power losses.
    @Test func whatWasNotFlushedMayBeMissing() throws {
        let rounds = ProcessControl.environment("COLDFRAME_CRASH_ROUNDS").flatMap { Int($0) } ?? 300
        try campaign.runPowerLosses(rounds: rounds, seed: 42)
    }
}
