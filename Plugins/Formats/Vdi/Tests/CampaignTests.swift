import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import VdiFormat

/// The campaigns of every format, with small blocks; and that the header is ahead of the map at every moment.
@Suite struct CampaignTests {
    private static let operations: [DiskOperation] = [
        .write(0..<50_000, seed: 1), .flush, .write(60_000..<61_000, seed: 2), .zero(4096..<20_000, .mayUnmap),
        .write(100..<9_000, seed: 4), .discard(30_000..<40_000), .flush, .write(0..<130_000, seed: 5), .flush,
    ]

    @Test func randomOperationsAgreeWithTheModel() throws {
        try PropertyCampaign(subject: .vdi, byteCount: 1 << 20, defaultRuns: 10).run()
    }

    @Test func aCrashLeavesTheOldOrTheNew() throws {
        let campaign = CrashCampaign(subject: .vdi, byteCount: 33 * 4096, operations: Self.operations)
        try campaign.runKills()
        let rounds = ProcessControl.environment("COLDFRAME_CRASH_ROUNDS").flatMap { Int($0) } ?? 100
        try campaign.runPowerLosses(rounds: rounds, seed: 11)
    }

    @Test func aFailedCallIsAnErrorAndNoDamage() throws {
        let campaign = FaultCampaign(
            subject: .vdi, byteCount: 33 * 4096, preparation: [.write(0..<10_000, seed: 1), .flush])
        for operation: DiskOperation in [.write(5_000..<60_000, seed: 3), .zero(0..<9_000, []), .flush] {
            let calls = try campaign.run(operation, failing: "file")
            #expect(calls > 0)
        }
    }

    /// Other programs take the header's count for the next free block.
    @Test func theCountIsDurableBeforeABlockIsNamed() throws {
        let image = try SubjectImage(.vdi, byteCount: 300 * 4096, storage: .memory)
        let log = CallLog()
        let driver = try VdiDriver(
            VdiImage(try image.nodes { RecordingDriver($1, file: $0, log: log) }["file"]!), isReadOnly: false)
        for block in 0..<300 { try driver.writeBytes([1], at: UInt64(block * 7 % 300) * 4096) }
        try driver.close()
        var written: UInt32 = 0
        var durable: UInt32 = 0
        var named = 0
        var flushes = 0
        for entry in log.entries {
            switch entry.call {
            case .flush:
                durable = written
                flushes += 1
            case .write(VdiHeader.allocatedCountOffset, let bytes): written = bytes.littleEndian(UInt32.self, at: 0)
            case .write(512..<1712, let bytes):
                named += 1
                #expect(bytes.littleEndian(UInt32.self, at: 0) < durable)
            default: break
            }
        }
        #expect(named == 300)
        // One for 64 blocks, those of the close apart.
        #expect(flushes < 10)
        #expect(try VdiImage(image.nodes()["file"]!).header.allocatedCount == 300)
    }
}
