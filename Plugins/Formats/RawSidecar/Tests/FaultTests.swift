import ConformanceKit
import Testing

@testable import RawSidecarFormat

@Suite struct FaultTests {
    private let campaign = FaultCampaign(
        subject: .rawSidecar(), byteCount: 12 * 16384,
        preparation: [
            .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2),
            // Not flushed: a snapshot has to flush both files.
            .create(state: nil), .write(20_000..<60_000, seed: 3),
        ])

    @Test(arguments: 0..<7)
    func everyFailedCallLeavesTheImageIntact(kind: Int) throws {
        let operation: DiskOperation =
            switch kind {
            case 0: .create(state: nil)
            case 1: .delete(choice: 0)
            case 2: .revert(choice: 1)
            case 3: .create(state: 70_000)
            case 4: .write(5_000..<90_000, seed: 9)
            case 5: .discard(0..<100_000)
            default: .resize(20_000)
            }
        for file in ["disk.raw", "disk.raw.sidecar"] {
            let calls = try campaign.run(operation, failing: file)
            #expect(calls > 0 || (kind == 1 || kind == 5) && file == "disk.raw")
        }
    }
}
