import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import ImageTools

/// What of a disk is given out to those who copy it.
@Suite struct DataPiecesTests {
    /// Says of each part what it is told to; has no content.
    private final class Described: BlockDriver, Sendable {
        let driverName = "described"
        let isReadOnly = true
        let threadModel = ThreadModel.parallel
        let displayFilename = "described"
        let byteCount: UInt64
        let data: [Range<UInt64>]
        let calls = Locked<Int>(0)

        init(byteCount: UInt64, data: [Range<UInt64>]) {
            self.byteCount = byteCount
            self.data = data
        }

        func information() throws(ColdframeError) -> BlockInformation { BlockInformation(allocatedByteCount: 0) }
        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {}
        func write(_: UnsafeRawBufferPointer, at: UInt64, flags: WriteFlags) throws(ColdframeError) {}
        func writeZeroes(at: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {}
        func discard(at: UInt64, byteCount: UInt64) throws(ColdframeError) {}
        func flush() throws(ColdframeError) {}
        func close() throws(ColdframeError) {}

        func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
            calls.withLock { $0 += 1 }
            var list = ExtentList(limit: limit)
            let end = offset + byteCount
            var position = offset
            while position < end, !list.isFull {
                let here = data.first { $0.contains(position) }
                let next = min(end, here?.upperBound ?? data.map(\.lowerBound).filter { $0 > position }.min() ?? end)
                list.append(
                    Extent(
                        offset: position, byteCount: next - position,
                        kind: here == nil ? .zero(allocated: false) : .opaque))
                position = next
            }
            return list.extents
        }
    }

    private func pieces(of disk: Described, unit: UInt64, limit: UInt64) throws -> [Range<UInt64>] {
        let pieces = DataPieces(of: BlockNode(name: "disk", driver: disk), unitByteCount: unit, limit: limit)
        var found: [Range<UInt64>] = []
        var covered: UInt64 = 0
        while let piece = try pieces.next() {
            covered += piece.coveredByteCount
            #expect(covered == piece.range.upperBound)
            found.append(piece.range)
        }
        #expect(try pieces.next() == nil)
        return found
    }

    @Test func nothingIsLeftOutAndNothingGivenOutTwice() throws {
        for seed in 0..<200 as Range<UInt64> {
            var generator = SeededGenerator(seed: seed)
            let byteCount = UInt64.random(in: 1...(1 << 22), using: &generator)
            var data: [Range<UInt64>] = []
            var position: UInt64 = 0
            while position < byteCount {
                let start = position + UInt64.random(in: 1...90_000, using: &generator)
                let end = min(byteCount, start + UInt64.random(in: 1...90_000, using: &generator))
                if start < end { data.append(start..<end) }
                position = max(start, end)
            }
            let unit = ([1, 512, 65536] as [UInt64]).randomElement(using: &generator)!
            let found = try pieces(of: Described(byteCount: byteCount, data: data), unit: unit, limit: 2 * 65536)
            var end: UInt64 = 0
            for piece in found {
                #expect(piece.lowerBound >= end && !piece.isEmpty && piece.count <= 2 * 65536, "seed \(seed)")
                #expect(piece.lowerBound % unit == 0, "seed \(seed)")
                #expect(piece.upperBound % unit == 0 || piece.upperBound == byteCount, "seed \(seed)")
                end = piece.upperBound
            }
            for range in data {
                var next = range.lowerBound
                for piece in found where piece.contains(next) { next = piece.upperBound }
                #expect(next >= range.upperBound, "seed \(seed): \(range)")
            }
            // Nothing that holds no data, as far as units allow.
            #expect(found.allSatisfy { piece in data.contains { $0.overlaps(piece) } }, "seed \(seed)")
        }
    }

    @Test func holesCostALookAtEachGibibyteAndNoPiece() throws {
        let disk = Described(byteCount: 100 << 30, data: [(50 << 30)..<(50 << 30) + 5])
        #expect(try pieces(of: disk, unit: 1, limit: 8 << 20) == [(50 << 30)..<(50 << 30) + 5])
        #expect(disk.calls.withLock { $0 } == 100)
    }
}
