import ColdframeKit
import LinuxSystem
import Testing

@testable import RawFormat

/// A child in memory.
private final class MemoryDisk: BlockDriver, Resizable, @unchecked Sendable {
    // Unchecked: one test, one thread.
    var content: [UInt8]
    let isReadOnly = false
    let driverName = "memory"
    let threadModel = ThreadModel.parallel
    let displayFilename = "memory"
    private(set) var flushCount = 0
    init(_ content: [UInt8]) { self.content = content }
    var byteCount: UInt64 { UInt64(content.count) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation(allocatedByteCount: 7) }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        buffer.copyBytes(from: content[Int(offset)..<Int(offset) + buffer.count])
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        content.replaceSubrange(Int(offset)..<Int(offset) + buffer.count, with: buffer)
    }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        for index in Int(offset)..<Int(offset + byteCount) { content[index] = 0 }
    }
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}
    func flush() throws(ColdframeError) { flushCount += 1 }
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }
    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        content = Array((content + [UInt8](repeating: 0, count: Int(byteCount))).prefix(Int(byteCount)))
    }
    func close() throws(ColdframeError) {}
}

@Suite struct RawDriverTests {
    private let disk = MemoryDisk((0..<4096).map { UInt8(truncatingIfNeeded: $0) })

    private func window(offset: UInt64 = 0, size: UInt64? = nil) -> RawDriver {
        RawDriver(child: BlockNode(name: "disk", driver: disk), offset: offset, fixedSize: size, isReadOnly: false)
    }

    private func bytes(_ driver: RawDriver, at offset: UInt64, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Result { () throws in try driver.read(into: buffer, at: offset) }
        }
        try result.get()
        return bytes
    }

    @Test func readsFromItsOffset() throws {
        #expect(try bytes(window(offset: 1024), at: 5, count: 3) == [5, 6, 7])
        #expect(try bytes(window(offset: 1030), at: 0, count: 2) == [6, 7])
    }

    @Test func writesAtItsOffset() throws {
        let window = window(offset: 512)
        try [UInt8]([1, 2, 3]).withUnsafeBytes { try window.write($0, at: 10, flags: []) }
        #expect(Array(disk.content[522..<525]) == [1, 2, 3])
    }

    @Test func followsTheChildsEnd() throws {
        let window = window(offset: 1024)
        #expect(window.byteCount == 3072)
        try window.resize(toByteCount: 1000)
        #expect(window.byteCount == 1000)
        #expect(disk.content.count == 2024)
    }

    @Test func hasASizeOfItsOwn() {
        #expect(window(offset: 512, size: 1024).byteCount == 1024)
    }

    @Test func doesNotReachBehindItsSize() {
        let window = window(offset: 0, size: 1024)
        #expect(throws: ColdframeError.self) { try window.writeZeroes(at: 1000, byteCount: 25, flags: []) }
        #expect(throws: ColdframeError.self) { try window.discard(at: .max, byteCount: 2) }
    }

    @Test func aFixedSizeCannotChange() {
        let window = window(offset: 0, size: 1024)
        #expect(throws: ColdframeError.self) { try window.resize(toByteCount: 512) }
    }

    @Test func extentsAreShifted() throws {
        let extents = try window(offset: 512).extents(at: 100, byteCount: 200, limit: 8)
        #expect(extents == [Extent(offset: 100, byteCount: 200, kind: .opaque)])
    }

    @Test func closeFlushes() throws {
        try window().close()
        #expect(disk.flushCount == 1)
    }
}
