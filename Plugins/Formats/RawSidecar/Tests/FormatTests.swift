import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import RawSidecarFormat

/// The page about the format and the code say the same.
@Suite struct FormatTests {
    private let superblock = Superblock(
        uuid: Array(0..<16), sequence: 2, clusterBits: 16, isInUse: false, logCluster: 1, logClusterCount: 4,
        logSeed: 0x0102_0304, recordCount: 1,
        stamp: RawStamp(byteCount: 1 << 20, time: .init(seconds: 1_700_000_000, nanoseconds: 5)))

    private let snapshot = SnapshotRecord(
        generation: 1,
        info: SnapshotInfo(
            id: "1", name: "a", dateSeconds: 1_700_000_001, dateNanoseconds: 7, guestClockNanoseconds: 9,
            diskByteCount: 1 << 20))

    private var record: [UInt8] {
        let payload = Record.snapshot(snapshot).payload
        var frame = RecordFrame(
            type: 2, payloadByteCount: UInt32(payload.count), log: 0x0102_0304, salt: 0x0a0b_0c0d, sequence: 0,
            durableCount: 0, predecessor: 0x0102_0304)
        return frame.record(payload)
    }

    /// The bytes of the page's block with that name.
    private func example(_ name: String) throws -> [UInt8] {
        let page = #filePath.split(separator: "/").dropLast(5).joined(separator: "/")
        let text = String(
            decoding: try Files.readAll("/\(page)/docs/formats/raw-sidecar.md"), as: UTF8.self)
        var isInside = false
        var bytes: [UInt8] = []
        for line in text.split(separator: "\n") {
            if line.hasPrefix("```") {
                isInside = line == "```hex \(name)"
            } else if isInside {
                for word in line.split(separator: " ").dropFirst() {
                    bytes.append(try #require(UInt8(word, radix: 16)))
                }
            }
        }
        return bytes
    }

    static func hexDump(_ bytes: [UInt8]) -> String {
        stride(from: 0, to: bytes.count, by: 16).map { start in
            let offset = String(start, radix: 16)
            let line = bytes[start..<min(bytes.count, start + 16)].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
            return String(repeating: "0", count: 4 - offset.count) + offset + "  " + line.joined(separator: " ")
        }.joined(separator: "\n")
    }

    @Test func theExampleOfThePageIsWhatIsWritten() throws {
        let (first, second) = (superblock.encoded, record)
        #expect(try example("superblock") == first, "should be\n\(Self.hexDump(first))")
        #expect(try example("record") == second, "should be\n\(Self.hexDump(second))")
    }

    @Test func theExampleOfThePageCanBeRead() throws {
        let image = try SubjectImage(.rawSidecar(), contents: [:])
        var bytes = try example("superblock")
        bytes += [UInt8](repeating: 0, count: 65536 - bytes.count)
        bytes += try example("record")
        bytes += [UInt8](repeating: 0, count: 5 * 65536 - bytes.count)
        try image.write(bytes, to: "disk.raw.sidecar")
        try image.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
        let disk = try openImage(try image.nodes(), isReadOnly: true)
        #expect(disk.snapshots == [snapshot.info])
    }

    @Test func recordsSurviveTheWayThroughBytes() throws {
        let records: [Record] = [
            .next(cluster: 7, clusterCount: 3), .snapshot(snapshot), .deleted(generation: 4),
            .preserved([
                PreservedRun(cluster: 9, generation: 2, location: 5, checksums: [1, 2, 3]),
                PreservedRun(cluster: 20, generation: 2, location: 0, checksums: [], zeroCount: 8192),
            ]),
            .stateRuns(generation: 1, [StoredRun(location: 8, checksums: [4, 5])]),
            .stateAttached(generation: 1, byteCount: 70_000, guestClockNanoseconds: 3, annotation: [1, 2]),
            .revertBegun(target: 1, undo: snapshot), .revertEnded(undo: 2), .suspect(first: 1, last: 3),
            .bitmap(
                StoredBitmap(
                    name: "b", granularity: 65536, diskByteCount: 1 << 30, isRecording: true, isInconsistent: false,
                    runs: [.init(position: 3, location: 9, checksums: [1, 2])])),
            .bitmapRemoved(name: "b"),
        ]
        for record in records {
            let payload = record.payload
            #expect(try Record(type: record.type, payload: payload[...]) == record)
            for count in 0..<payload.count {
                #expect(throws: ColdframeError.self) { try Record(type: record.type, payload: payload[..<count]) }
            }
        }
    }
}
