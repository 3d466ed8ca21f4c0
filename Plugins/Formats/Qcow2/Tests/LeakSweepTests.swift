import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What nobody points to is freed; nothing else is touched.
@Suite struct LeakSweepTests {
    /// Opens the image, sweeps, closes; returns the bytes freed.
    private func sweep(_ path: String) throws -> UInt64 {
        let driver = try openImage(path)
        let freed = try driver.reclaimLeaks()
        #expect(try LeakSweep(driver).findings() == LeakSweep.Findings())
        try driver.close()
        return freed
    }

    /// An image with two snapshots, one of them with a state, whose driver was never closed.
    private func abandonedImage(
        _ fixture: ImageFixture, clusterByteCount: UInt64, refcountBits: UInt64 = 16
    ) throws -> (path: String, content: [UInt8]) {
        let path = fixture.path("a")
        try createImage(
            path, byteCount: 1 << 20, clusterByteCount: clusterByteCount, refcountBits: refcountBits)
        let driver = try openImage(path)
        try driver.writeBytes(pattern(600_000, 1), at: 1000)
        let first = try driver.createSnapshot(request("first"))
        let state = try driver.beginVMState()
        try pattern(200_000, 2).withUnsafeBytes { try state.append($0) }
        _ = try state.attach(toSnapshot: first.id, annotation: [], guestClockNanoseconds: 0)
        try driver.writeBytes(pattern(300_000, 3), at: 50_000)
        _ = try driver.createSnapshot(request("second"))
        try driver.writeBytes(pattern(200_000, 4), at: 90_000)
        let lost = try driver.beginVMState()
        try pattern(300_000, 5).withUnsafeBytes { try lost.append($0) }
        return (path, try driver.readBytes(0, 1 << 20))
    }

    @Test(arguments: [512, 4096, 65536] as [UInt64], [8, 16, 64] as [UInt64])
    func whatAKilledWriterLeftIsFreed(clusterByteCount: UInt64, refcountBits: UInt64) throws {
        let fixture = try ImageFixture()
        let (path, content) = try abandonedImage(
            fixture, clusterByteCount: clusterByteCount, refcountBits: refcountBits)
        let (status, _) = try fixture.runAny("qemu-img", ["check", path])
        #expect(status == 3, "the killed writer was to leave leaks")
        #expect(try sweep(path) > 300_000)
        try fixture.expectClean(path)
        #expect(try sweep(path) == 0)
        let driver = try openImage(path)
        #expect(try driver.readBytes(0, 1 << 20) == content)
        #expect(driver.snapshots.map(\.name) == ["first", "second"])
        let reader = try driver.openVMState(ofSnapshot: driver.snapshots[0].id)
        var state = [UInt8](repeating: 0, count: 200_000)
        try state.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
        #expect(state == pattern(200_000, 2))
        try driver.close()
    }

    @Test func anImageOfQEMUWithCompressedClustersAndABackingFileHasNoLeaks() throws {
        let fixture = try ImageFixture()
        try fixture.run("qemu-img", ["create", "-q", "-f", "raw", fixture.path("raw"), "1M"])
        try fixture.run(
            "qemu-io", ["-f", "raw", "-c", "write -q -P 3 0 300k", "-c", "write -q -P 4 500k 90k", fixture.path("raw")])
        try fixture.run(
            "qemu-img",
            ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4096", fixture.path("raw"), fixture.path("b")])
        try fixture.run("qemu-img", ["snapshot", "-c", "t", fixture.path("b")])
        try fixture.run("qemu-io", ["-c", "write -q -P 5 100k 100k", "-c", "write -q -z 0 20k", fixture.path("b")])
        try fixture.expectClean(fixture.path("b"))
        #expect(try sweep(fixture.path("b")) == 0)
        try fixture.expectClean(fixture.path("b"))
    }

    @Test func aDamagedImageIsNotTouched() throws {
        let fixture = try ImageFixture()
        let (path, _) = try abandonedImage(fixture, clusterByteCount: 4096)
        let driver = try openImage(path)
        // A cluster in use that counts as free.
        try driver.store.state.withLock { state in
            try state.refcounts.adjust(
                ClusterRun(first: state.header.l1Offset.rawValue >> 12, count: 1), raise: false)
        }
        let before = try Files.readAll(path, limit: 1 << 30)
        #expect(throws: ColdframeError.self) { try driver.reclaimLeaks() }
        #expect(try Files.readAll(path, limit: 1 << 30) == before)
    }

    @Test func aFailedWriteLeavesTheRestForTheNextSweep() throws {
        let fixture = try ImageFixture()
        let (path, _) = try abandonedImage(fixture, clusterByteCount: 512)
        let faulty = FaultyDriver(try PlainFile(path: path))
        let driver = try openImage(BlockNode(name: "file", driver: faulty))
        faulty.fail(call: 1)
        #expect(throws: ColdframeError.self) { try driver.reclaimLeaks() }
        faulty.heal()
        try fixture.expectNoErrors(path)
        #expect(try sweep(path) > 0)
        try fixture.expectClean(path)
    }

    @Test func bitmapsAreCounted() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try fixture.run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try fixture.run("qemu-img", ["bitmap", "--add", path, "b"])
        let driver = try openImage(path)
        #expect(try driver.reclaimLeaks() == 0)
        try driver.close()
        try fixture.expectClean(path)
    }
}
