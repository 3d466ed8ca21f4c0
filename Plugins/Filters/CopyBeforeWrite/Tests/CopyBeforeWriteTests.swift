import BlockCopying
import ColdframeKit
import LinuxSystem
import Synchronization
import Testing

@testable import CopyBeforeWriteFilter

/// A disk in memory that can be told to fail.
private final class MemoryDisk: BlockDriver {
    let driverName = "memory"
    let threadModel = ThreadModel.parallel
    let isReadOnly = false
    let displayFilename = "memory"
    let byteCount: UInt64
    private let content: Locked<[UInt8]>
    let failsWrites = Atomic<Bool>(false)

    init(_ byteCount: Int, filledWith byte: UInt8) {
        self.byteCount = UInt64(byteCount)
        content = Locked([UInt8](repeating: byte, count: byteCount))
    }

    var bytes: [UInt8] { content.withLock { $0 } }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let copy = content.withLock { Array($0[Int(offset)..<Int(offset) + buffer.count]) }
        buffer.copyBytes(from: copy)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if failsWrites.load(ordering: .relaxed) { throw ColdframeError(.io, "told to fail") }
        let copy = Array(buffer)
        content.withLock { $0.replaceSubrange(Int(offset)..<Int(offset) + copy.count, with: copy) }
    }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if failsWrites.load(ordering: .relaxed) { throw ColdframeError(.io, "told to fail") }
        content.withLock { for index in Int(offset)..<Int(offset + byteCount) { $0[index] = 0 } }
    }
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}
    func flush() throws(ColdframeError) {}
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }
    func close() throws(ColdframeError) {}
}

@Suite struct CopyBeforeWriteTests {
    private let size = 640 << 10
    private let source: MemoryDisk
    private let target: MemoryDisk

    init() {
        source = MemoryDisk(640 << 10, filledWith: 1)
        target = MemoryDisk(640 << 10, filledWith: 0)
    }

    private func filter(_ policy: CopyErrorPolicy = .breakGuestWrite, dirty: DirtyBits? = nil) -> CopyBeforeWriteDriver
    {
        let copy = BlockCopy(
            source: BlockNode(name: "source", driver: source), target: BlockNode(name: "target", driver: target),
            clusterByteCount: 65536, dirty: dirty)
        return CopyBeforeWriteDriver(copy: copy, policy: policy)
    }

    private func moment(_ driver: CopyBeforeWriteDriver, at offset: UInt64 = 0, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 7, count: count)
        try bytes.withUnsafeMutableBytes { buffer in
            try Result { () throws in try driver.readMoment(into: buffer, at: offset) }.get()
        }
        return bytes
    }

    private func write(_ driver: CopyBeforeWriteDriver, _ byte: UInt8, at offset: UInt64, count: Int) throws {
        try [UInt8](repeating: byte, count: count).withUnsafeBytes { buffer in
            try Result { () throws in try driver.write(buffer, at: offset, flags: []) }.get()
        }
    }

    @Test func theMomentStaysWhateverIsWritten() throws {
        let driver = filter()
        try write(driver, 9, at: 70_000, count: 100)
        try driver.writeZeroes(at: 0, byteCount: 10, flags: [])
        try driver.discard(at: 300_000, byteCount: 1)
        #expect(try moment(driver, count: size) == [UInt8](repeating: 1, count: size))
        #expect(source.bytes[70_000] == 9 && source.bytes[0] == 0)
        // Only the clusters that were touched have been copied.
        #expect(target.bytes.filter { $0 == 1 }.count == 3 * 65536)
    }

    @Test func aCopyThatFailsFailsTheWrite() throws {
        let driver = filter()
        target.failsWrites.store(true, ordering: .relaxed)
        #expect(throws: ColdframeError.self) { try write(driver, 9, at: 0, count: 1) }
        #expect(source.bytes[0] == 1)
        target.failsWrites.store(false, ordering: .relaxed)
        try write(driver, 9, at: 0, count: 1)
        #expect(try moment(driver, count: 10) == [UInt8](repeating: 1, count: 10))
    }

    @Test func aBrokenMomentIsNotShown() throws {
        let driver = filter(.breakSnapshot)
        target.failsWrites.store(true, ordering: .relaxed)
        try write(driver, 9, at: 0, count: 1)
        #expect(source.bytes[0] == 9)
        #expect(throws: ColdframeError.self) { try moment(driver, at: 500_000, count: 10) }
    }

    @Test func whatIsDiscardedOrNotMarkedCannotBeRead() throws {
        var dirty = DirtyBits(diskByteCount: UInt64(size), granularity: 4096)
        dirty.set(at: 0, byteCount: 131_072)
        let driver = filter(dirty: dirty)
        #expect(try moment(driver, count: 131_072).count == 131_072)
        #expect(throws: ColdframeError.self) { try moment(driver, at: 131_071, count: 2) }
        try driver.discardMoment(at: 65536, byteCount: 65536)
        #expect(throws: ColdframeError.self) { try moment(driver, at: 65536, count: 1) }
        try write(driver, 9, at: 65536, count: 65536)
        #expect(target.bytes[65536] == 0)
    }

    @Test func readersSeeTheMomentWhileWritersAreAtIt() async throws {
        let driver = filter()
        let size = size
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<3 {
                group.addTask {
                    for round in 0..<60 {
                        let offset = UInt64((round * 7919 + number * 104_729) % (size - 20_000))
                        try write(driver, UInt8(2 + number), at: offset, count: 20_000)
                    }
                }
                group.addTask {
                    for round in 0..<60 {
                        let offset = UInt64((round * 6131 + number * 50_021) % (size - 30_000))
                        let bytes = try moment(driver, at: offset, count: 30_000)
                        #expect(bytes.allSatisfy { $0 == 1 })
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
