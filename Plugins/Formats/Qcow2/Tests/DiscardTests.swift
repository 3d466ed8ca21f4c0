import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What of the clusters that become free the host gets back (`pass-discard-request`, `-snapshot`, `-other`).
@Suite struct DiscardTests {
    private static let cluster = 65536

    private struct Image {
        let fixture: ImageFixture
        let driver: Qcow2Driver
        var path: String { fixture.path("a") }

        init(_ policy: DiscardPolicy) throws {
            fixture = try ImageFixture()
            let path = fixture.path("a")
            try createImage(path, byteCount: 8 << 20)
            var options = Qcow2Driver.Options()
            options.discardPolicy = policy
            driver = try Qcow2Driver(try Qcow2Image.read(try fileNode(path)), backing: nil, options: options)
        }

        func write(_ clusters: Range<Int>, _ value: UInt8) throws {
            let bytes = [UInt8](repeating: value, count: clusters.count * cluster)
            try driver.writeBytes(bytes, at: UInt64(clusters.lowerBound * cluster))
        }

        func discard(_ clusters: Range<Int>) throws {
            try driver.discard(at: UInt64(clusters.lowerBound * cluster), byteCount: UInt64(clusters.count * cluster))
        }

        /// Where in the file clusters of the disk lie.
        func places(of clusters: Range<Int>) throws -> [UInt64] {
            try clusters.map { number in
                let extents = try driver.extents(
                    at: UInt64(number * cluster), byteCount: UInt64(cluster), limit: 1)
                guard case .data(_, let place) = try #require(extents.first).kind else { return 0 }
                return place
            }
        }

        func isHole(_ place: UInt64) throws -> Bool {
            let data = try Descriptor.open(path, [.readOnly]).seekData(from: place)
            return data.map { $0 >= place + UInt64(cluster) } ?? true
        }

        /// What the file takes on its file system, in clusters, once nothing waits for a flush.
        func taken() throws -> Int {
            for _ in 0..<2 { try driver.flush() }
            return Int(try Files.status(path).allocatedByteCount) / cluster
        }
    }

    @Test(arguments: [true, false]) func whatTheGuestGivesUp(isPassed: Bool) throws {
        let image = try Image(DiscardPolicy(request: isPassed, snapshot: !isPassed, other: !isPassed))
        try image.write(0..<32, 1)
        let before = try image.taken()
        try image.discard(4..<12)
        try image.driver.writeZeroes(
            at: UInt64(20 * Self.cluster), byteCount: UInt64(8 * Self.cluster), flags: .mayUnmap)
        #expect(before - (try image.taken()) == (isPassed ? 16 : 0))
        #expect(
            try image.driver.readBytes(UInt64(3 * Self.cluster), 2 * Self.cluster).prefix(Self.cluster).allSatisfy {
                $0 == 1
            })
        #expect(try image.driver.readBytes(UInt64(4 * Self.cluster), 8 * Self.cluster).allSatisfy { $0 == 0 })
        try image.driver.close()
        try image.fixture.expectClean(image.path)
    }

    /// Of what lies side by side in the file a snapshot has a part.
    @Test func whatASnapshotHoldsStaysAndTheRestGoes() throws {
        let image = try Image(DiscardPolicy())
        try image.write(0..<16, 1)
        _ = try image.driver.createSnapshot(request("s"))
        try image.write(16..<32, 2)
        let before = try image.taken()
        try image.discard(8..<24)
        #expect(before - (try image.taken()) == 8)
        let shown = try image.driver.openSnapshot(id: try #require(image.driver.snapshots.first?.id))
        #expect(try shown.readBytes(0, 16 * Self.cluster).allSatisfy { $0 == 1 })
        #expect(try image.driver.readBytes(UInt64(24 * Self.cluster), 8 * Self.cluster).allSatisfy { $0 == 2 })
        try image.driver.close()
        try image.fixture.expectClean(image.path)
    }

    @Test(arguments: [true, false]) func whatOnlyADeletedSnapshotHeld(isPassed: Bool) throws {
        let image = try Image(DiscardPolicy(request: !isPassed, snapshot: isPassed, other: !isPassed))
        try image.write(0..<32, 1)
        let places = try image.places(of: 8..<24)
        let info = try image.driver.createSnapshot(request("s"))
        try image.write(8..<24, 2)
        try image.driver.flush()
        #expect(try places.map(image.isHole) == places.map { _ in false })
        try image.driver.deleteSnapshot(id: info.id)
        try image.driver.flush()
        #expect(try places.map(image.isHole) == places.map { _ in isPassed })
        #expect(try image.driver.readBytes(UInt64(7 * Self.cluster), Self.cluster).allSatisfy { $0 == 1 })
        #expect(try image.driver.readBytes(UInt64(8 * Self.cluster), 16 * Self.cluster).allSatisfy { $0 == 2 })
        try image.driver.close()
        try image.fixture.expectClean(image.path)
    }

    @Test(arguments: [true, false]) func whatHasMoved(isPassed: Bool) throws {
        let image = try Image(DiscardPolicy(request: !isPassed, snapshot: !isPassed, other: isPassed))
        _ = try image.driver.loadBitmaps()
        var stored: [DirtyBitmap] = []
        for number in 0..<8 {
            let bitmap = DirtyBitmap(name: "b\(number)", granularity: 512, diskByteCount: 8 << 20)
            bitmap.update { $0.isPersistent = true }
            bitmap.updateBits { $0.set(at: 0, byteCount: 512) }
            stored.append(bitmap)
        }
        try image.driver.storeBitmaps(stored)
        let before = try image.taken()
        // The same again, elsewhere.
        try image.driver.storeBitmaps(stored)
        let grown = try image.taken() - before
        // The directory, and of each bitmap a table; their bits fill a sixteenth of a cluster each.
        #expect(grown == (isPassed ? 0 : 9))
        try image.driver.close()
        try image.fixture.expectClean(image.path)
    }
}
