import ColdframeKit
import ConformanceKit
import Testing

@testable import RawSidecarFormat

/// Damaged sidecars, also such whose checksums are right.
@Suite struct FuzzTests {
    @Test func damageIsAnErrorAndNeverACrash() throws {
        let image = try SubjectImage(.rawSidecar(), byteCount: 20 * 16384, storage: .memory)
        var driver = try image.open()
        var model = DiskModel(byteCount: 20 * 16384)
        for operation: DiskOperation in [
            .write(0..<200_000, seed: 1), .create(state: 20_000), .write(10_000..<90_000, seed: 2),
            .create(state: nil), .write(0..<30_000, seed: 3), .resize(200_000), .create(state: 100), .delete(choice: 1),
            .resize(400_000), .write(0..<300_000, seed: 4), .revert(choice: 0),
        ] {
            try model.apply(operation, to: &driver) { $0 }
        }
        try driver.close()
        let campaign = FuzzCampaign(
            subject: .rawSidecar(), contents: try image.contents(), mend: { Self.mend(&$0["disk.raw.sidecar"]) })
        try campaign.run()
    }

    /// Makes the checksums of the superblocks and of the first segment's records right.
    private static func mend(_ file: inout [UInt8]?) {
        guard var bytes = file, bytes.count >= 8192 else { return }
        for slot in [0, 4096] where bytes[slot..<slot + 8].elementsEqual(Superblock.magic) {
            bytes.storeLittleEndian(Checksum.of(Array(bytes[slot..<slot + 124])), at: slot + 124)
            let bits = bytes.littleEndian(UInt32.self, at: slot + 56)
            let start = UInt64(bytes.littleEndian(UInt32.self, at: slot + 64)) << UInt64(min(bits, 21))
            guard start < UInt64(bytes.count) else { continue }
            mendLog(&bytes, at: Int(start), seed: bytes.littleEndian(UInt32.self, at: slot + 72))
        }
        file = bytes
    }

    private static func mendLog(_ bytes: inout [UInt8], at start: Int, seed: UInt32) {
        var position = start
        var predecessor = seed
        while position + RecordFrame.byteCount <= bytes.count,
            bytes.littleEndian(UInt32.self, at: position) == RecordFrame.magic
        {
            let payload = bytes.littleEndian(UInt32.self, at: position + 8)
            let end = position + RecordFrame.byteCount + Int(payload)
            guard payload <= Limits.payloadByteCount, end <= bytes.count else { return }
            bytes.storeLittleEndian(UInt32(0), at: position + 40)
            bytes.storeLittleEndian(predecessor, at: position + 44)
            // The predecessor stands behind the checksum, and is covered by it.
            predecessor = Checksum.of(Array(bytes[position..<end]))
            bytes.storeLittleEndian(predecessor, at: position + 40)
            position += RecordFrame.recordByteCount(payload: Int(payload))
        }
    }
}
