import ColdframeKit
import LinuxSystem
import QMPWire
import Testing

@testable import FileProtocol

@Suite struct FileSpaceTests {
    private static let ones = [UInt8](repeating: 1, count: 1 << 20)

    private func allocated(_ image: TestImage) throws -> UInt64 { try Files.status(image.path).allocatedByteCount }

    @Test(arguments: [[:], ["discard": "unmap"], ["cache": ["direct": true]]] as [JSONObject])
    func zeroingZeroesExactly(_ options: JSONObject) throws {
        let image = try TestImage()
        let disk = try image.open(options)
        try disk.put(Self.ones, at: 0)
        try disk.writeZeroes(at: 10001, byteCount: 500_000, flags: .mayUnmap)
        #expect(try disk.bytes(at: 10000, count: 2) == [1, 0])
        #expect(try disk.bytes(at: 510_000, count: 2) == [0, 1])
        #expect(try disk.bytes(at: 10001, count: 500_000).allSatisfy { $0 == 0 })
        try disk.close()
    }

    @Test(arguments: [[:], ["discard": "unmap"], ["cache": ["direct": true]]] as [JSONObject])
    func zeroingBehindTheEndGrowsTheFile(_ options: JSONObject) throws {
        let image = try TestImage(byteCount: 1000)
        let disk = try image.open(options)
        try disk.writeZeroes(at: 500, byteCount: 9000, flags: .mayUnmap)
        #expect(disk.byteCount == 9500)
        #expect(try Files.status(image.path).byteCount == 9500)
        try disk.close()
    }

    @Test func unmappingGivesSpaceBack() throws {
        let image = try TestImage()
        let disk = try image.open(["discard": "unmap"])
        try disk.put(Self.ones, at: 0)
        try disk.writeZeroes(at: 0, byteCount: 1 << 20, flags: .mayUnmap)
        #expect(try allocated(image) < 1 << 19)
        try disk.close()
    }

    @Test func withoutUnmapSpaceIsKept() throws {
        let image = try TestImage()
        let disk = try image.open()
        try disk.put(Self.ones, at: 0)
        try disk.writeZeroes(at: 0, byteCount: 1 << 20, flags: .mayUnmap)
        try disk.discard(at: 0, byteCount: 1 << 20)
        #expect(try allocated(image) >= 1 << 20)
        try disk.close()
    }

    @Test func discardGivesSpaceBackAndKeepsTheSize() throws {
        let image = try TestImage()
        let disk = try image.open(["discard": "unmap"])
        try disk.put(Self.ones, at: 0)
        try disk.discard(at: 0, byteCount: 1 << 20)
        #expect(try allocated(image) < 1 << 19)
        #expect(disk.byteCount == 1 << 20)
        #expect(try disk.bytes(at: 5000, count: 3) == [0, 0, 0])
        try disk.close()
    }

    @Test func aFilesystemThatCannotGetsZeros() throws {
        let image = try TestImage()
        let disk = try image.open()
        try disk.put(Self.ones, at: 0)
        // ZERO_RANGE, then PUNCH_HOLE, are refused, one request after the other.
        SystemCallFaults.inject(onCall: 1, errno: Errno.notSupported, matching: ["fallocate"])
        try disk.writeZeroes(at: 0, byteCount: 100, flags: [])
        SystemCallFaults.inject(onCall: 1, errno: Errno.notSupported, matching: ["fallocate"])
        #expect(throws: ColdframeError.self) { try disk.writeZeroes(at: 100, byteCount: 100, flags: .noFallback) }
        SystemCallFaults.inject(onCall: 0, errno: 0, matching: ["fallocate"])
        try disk.writeZeroes(at: 100, byteCount: 100, flags: [])
        #expect(SystemCallFaults.callCount == 0, "what is not there is not asked for again")
        SystemCallFaults.clear()
        #expect(try disk.bytes(at: 0, count: 201) == [UInt8](repeating: 0, count: 200) + [1])
        try disk.close()
    }

    @Test func aDiscardThatIsNotSupportedIsNoError() throws {
        let disk = try TestImage().open(["discard": "unmap"])
        SystemCallFaults.inject(onCall: 1, errno: Errno.notSupported, matching: ["fallocate"])
        defer { SystemCallFaults.clear() }
        try disk.discard(at: 0, byteCount: 4096)
    }

    @Test func extentsFollowTheHoles() throws {
        let image = try TestImage()
        let disk = try image.open()
        try disk.put([UInt8](repeating: 1, count: 65536), at: 262_144)
        let extents = try disk.extents(at: 0, byteCount: 1 << 20, limit: 10)
        #expect(extents.map(\.offset) == [0, 262_144, 327_680])
        #expect(extents.last?.end == 1 << 20)
        #expect(extents[0].kind == .zero(allocated: false))
        guard case .data(let source, 262_144) = extents[1].kind else {
            Issue.record("data at its own offset")
            return
        }
        var byte: UInt8 = 0
        let twin = try Descriptor.open("/proc/self/fd/\(source.descriptor)", .readOnly)
        _ = try withUnsafeMutableBytes(of: &byte) { try twin.pread(into: $0, at: 262_144) }
        #expect(byte == 1)
        #expect(try disk.extents(at: 0, byteCount: 1 << 20, limit: 1).count == 1)
        try disk.close()
    }

    @Test func aFilesystemWithoutHolesIsAllData() throws {
        let disk = try TestImage().open()
        SystemCallFaults.inject(onCall: 1, errno: Errno.invalid, matching: ["lseek"])
        defer { SystemCallFaults.clear() }
        let extents = try disk.extents(at: 4096, byteCount: 8192, limit: 4)
        #expect(extents.count == 1)
        #expect(extents[0].byteCount == 8192)
    }
}
