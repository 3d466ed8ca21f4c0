import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What a power loss leaves of a compressed write that was not flushed: its L2 entry may have reached the disk before its data.
@Suite struct CompressedCrashTests {
    private static let unit = 4096

    /// An image in which cluster 1 has an entry and no data.
    private func crashedImage(_ fixture: ImageFixture) throws -> String {
        let path = fixture.path("a")
        try createImage(path, byteCount: 16 * 4096, clusterByteCount: 4096)
        let recorder = RecordingDriver(try PlainFile(path: path))
        let disk = try openImage(BlockNode(name: "file", driver: recorder))
        func write(_ cluster: Int, _ value: UInt8) throws {
            try [UInt8](repeating: value, count: Self.unit).withUnsafeBytes {
                try disk.writeCompressed($0, at: UInt64(cluster * Self.unit))
            }
        }
        for cluster in 0..<4 { try write(cluster, UInt8(cluster + 1)) }
        try disk.flush()
        let base = try Files.readAll(path, limit: 1 << 30)
        let known = recorder.calls.count
        try write(1, 9)
        let calls = recorder.calls[known...]
        let written = calls.filter { if case .write = $0 { true } else { false } }
        // The data, then the entry.
        #expect(written.count == 2)
        try disk.close()
        let crashed = RecordingDriver.replay(written.suffix(1), on: base)
        let file = try Descriptor.open(path, [.writeOnly, .truncate])
        try file.writeAll(crashed)
        file.close()
        return path
    }

    @Test func itIsAnErrorToReadAsInQEMUAndNoDamageOfTheImage() throws {
        let fixture = try ImageFixture()
        let path = try crashedImage(fixture)
        try fixture.expectNoErrors(path)
        let theirs = try fixture.run("qemu-io", ["-f", "qcow2", "-c", "read 4k 4k", path], mayFail: true)
        #expect(theirs.contains("Input/output error"), "\(theirs)")
        let disk = try openImage(path)
        let error = #expect(throws: ColdframeError.self) { _ = try disk.readBytes(4096, 4096) }
        #expect(error?.code == .io && error?.errno == Errno.io, "\(String(describing: error))")
        for cluster in [0, 2, 3] {
            #expect(try disk.readBytes(UInt64(cluster * 4096), 1) == [UInt8(cluster + 1)])
        }
        // A part can't be written, since the rest is unknown; that is an error of this request alone.
        let refused = #expect(throws: ColdframeError.self) { try disk.writeBytes([1], at: 5000) }
        #expect(refused?.code == .io)
        #expect(!disk.isReadOnly)
        try disk.writeBytes([5], at: 9000)
        try disk.close()
        try fixture.expectNoErrors(path)
    }

    @Test func writingTheWholeClusterMendsIt() throws {
        for isCompressed in [false, true] {
            let fixture = try ImageFixture()
            let path = try crashedImage(fixture)
            let disk = try openImage(path)
            let new = [UInt8](repeating: 7, count: Self.unit)
            if isCompressed {
                try new.withUnsafeBytes { try disk.writeCompressed($0, at: 4096) }
            } else {
                try disk.writeBytes(new, at: 4096)
            }
            #expect(try disk.readBytes(4096, Self.unit) == new)
            _ = try disk.reclaimLeaks()
            try disk.close()
            try fixture.expectClean(path)
            #expect(Array(try fixture.content(path)[4096..<8192]) == new)
        }
    }
}
