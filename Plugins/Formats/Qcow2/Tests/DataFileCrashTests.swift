import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// The order of writes to an image and to its external data file, which lose power each for itself.
@Suite(.serialized) struct DataFileCrashTests {
    private static func subject(isRaw: Bool, clusterByteCount: UInt64) -> DiskSubject {
        DiskSubject(
            name: isRaw ? "raw data file" : "data file", files: ["image", "data"],
            create: { nodes, byteCount in
                var options = Qcow2Create.Options(diskByteCount: byteCount)
                options.clusterByteCount = clusterByteCount
                options.isDataFileRaw = isRaw
                try Qcow2Create.write(options, into: try #require(nodes["image"]), dataFile: nodes["data"])
            },
            open: { nodes, isReadOnly in
                var options = Qcow2Driver.Options()
                options.isReadOnly = isReadOnly
                return try Qcow2Driver(
                    try Qcow2Image.read(try #require(nodes["image"])), backing: nil, dataFile: nodes["data"],
                    options: options)
            })
    }

    private static func campaign(isRaw: Bool, clusterByteCount: UInt64) -> CrashCampaign {
        CrashCampaign(
            subject: subject(isRaw: isRaw, clusterByteCount: clusterByteCount), byteCount: 40 * 4096,
            operations: [
                .write(0..<50_000, seed: 1), .flush, .write(10_000..<30_000, seed: 2), .zero(4096..<20_000, .mayUnmap),
                .write(5_000..<6_000, seed: 3), .flush, .discard(0..<60_000), .write(8192..<30_000, seed: 4), .flush,
                .zero(100_000..<140_000, []), .write(110_000..<120_000, seed: 5), .resize(20 * 4096), .flush,
                .write(70_000..<80_000, seed: 6), .resize(60 * 4096), .write(75_000..<200_000, seed: 7), .flush,
                .discard(65_536..<200_000), .write(90_000..<90_512, seed: 8), .flush,
            ])
    }

    @Test(arguments: [false, true], [512, 65536] as [UInt64])
    func everyPrefixIsTheOldOrTheNewDisk(isRaw: Bool, clusterByteCount: UInt64) throws {
        try Self.campaign(isRaw: isRaw, clusterByteCount: clusterByteCount).runKills()
    }

    /// `COLDFRAME_CRASH_ROUNDS` sets the number of power losses.
    @Test(arguments: [false, true], [512, 65536] as [UInt64])
    func whatWasNotFlushedMayBeMissing(isRaw: Bool, clusterByteCount: UInt64) throws {
        let rounds = ProcessControl.environment("COLDFRAME_CRASH_ROUNDS").flatMap { Int($0) } ?? 40
        try Self.campaign(isRaw: isRaw, clusterByteCount: clusterByteCount).runPowerLosses(rounds: rounds, seed: 42)
    }
}
