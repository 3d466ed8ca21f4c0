import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import PreallocateFilter

/// A file in memory that grows under a write behind its end, as a plain file does.
private final class GrowingFile: BlockDriver, Resizable {
    let driverName = "growing"
    let threadModel = ThreadModel.parallel
    let isReadOnly = false
    let displayFilename = "growing:"
    private let state = Locked(State())
    struct State {
        var bytes: [UInt8] = []
        /// What was asked for, in order.
        var calls: [String] = []
        var refusesZeroes = false
        var refusesCuts = false
    }

    var now: State { state.withLock { $0 } }
    func update(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }
    var byteCount: UInt64 { UInt64(now.bytes.count) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let bytes = now.bytes
        for index in buffer.indices {
            let place = Int(offset) + index
            buffer[index] = place < bytes.count ? bytes[place] : 0
        }
    }

    private func put(_ bytes: [UInt8], at offset: UInt64, _ call: String) {
        state.withLock { state in
            let end = Int(offset) + bytes.count
            if state.bytes.count < end { state.bytes += [UInt8](repeating: 0, count: end - state.bytes.count) }
            state.bytes.replaceSubrange(Int(offset)..<end, with: bytes)
            state.calls.append("\(call) \(offset) \(bytes.count)")
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        put(Array(buffer), at: offset, "write")
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if now.refusesZeroes, flags.contains(.noFallback) { throw ColdframeError(.unsupported, "told to refuse") }
        put([UInt8](repeating: 0, count: Int(byteCount)), at: offset, "zero")
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}
    func flush() throws(ColdframeError) {}
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }

    func resize(toByteCount: UInt64) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            let count = Int(toByteCount)
            if count < state.bytes.count {
                if state.refusesCuts { throw ColdframeError(.io, "told to refuse") }
                state.bytes.removeLast(state.bytes.count - count)
            }
            state.bytes += [UInt8](repeating: 0, count: count - state.bytes.count)
            state.calls.append("resize \(count)")
        }
    }
    func close() throws(ColdframeError) {}
}

/// What only this filter does; what every filter must do is tested by Tests/Conformance, without a word here.
@Suite struct PreallocateTests {
    private let file = GrowingFile()
    private let filter: PreallocateDriver

    init() throws {
        filter = PreallocateDriver(
            BlockNode(name: "file", driver: file), ahead: .init(byteCount: 10_000, alignment: 4096))
        try file.resize(toByteCount: 1000)
    }

    private func owned() throws { try filter.setOwned(true) }

    @Test func spaceIsAllocatedAheadOfTheData() throws {
        try owned()
        try filter.writeBytes([1, 2, 3], at: 998)
        #expect(filter.byteCount == 1001 && file.byteCount == 12288)
        #expect(file.now.calls.suffix(2) == ["zero 1000 11288", "write 998 3"])
        // Within it nothing more is asked for.
        try filter.writeBytes([4], at: 12287)
        #expect(filter.byteCount == 12288 && file.now.calls.last == "write 12287 1")
        try filter.writeBytes([5], at: 12288)
        #expect(filter.byteCount == 12289 && file.byteCount == 24576)
        try filter.close()
        #expect(file.byteCount == 12289 && file.now.bytes.last == 5)
    }

    @Test func aFormatGrowsIntoIt() throws {
        try owned()
        try filter.grow(toByteCount: 5000)
        #expect(filter.byteCount == 5000 && file.byteCount == 16384)
        try filter.grow(toByteCount: 4000)
        try filter.grow(toByteCount: 16000)
        #expect(filter.byteCount == 16000 && file.byteCount == 16384)
        #expect(file.now.calls.count == 2)
    }

    @Test func zerosThatAreThereAreNotWritten() throws {
        try owned()
        try filter.writeZeroes(at: 1000, byteCount: 500, flags: [])
        try filter.writeZeroes(at: 3000, byteCount: 500, flags: [])
        #expect(file.now.calls.last == "zero 1000 11288")
        try filter.writeZeroes(at: 4000, byteCount: 10, flags: .mayUnmap)
        #expect(file.now.calls.last == "zero 4000 10")
    }

    /// QEMU 7.2 leaves the old bytes where a write came between the two.
    @Test func zerosOverDataAreWritten() throws {
        try owned()
        try filter.writeZeroes(at: 1000, byteCount: 2000, flags: [])
        try filter.writeBytes([UInt8](repeating: 9, count: 2000), at: 1000)
        try filter.writeZeroes(at: 2000, byteCount: 2000, flags: [])
        #expect(
            try filter.readBytes(1000, 3000) == [UInt8](repeating: 9, count: 1000) + [UInt8](repeating: 0, count: 2000))
    }

    @Test func aSizeThatIsSetIsTheFiles() throws {
        try owned()
        try filter.grow(toByteCount: 2000)
        try filter.resize(toByteCount: 500)
        #expect(filter.byteCount == 500 && file.byteCount == 500)
        try filter.grow(toByteCount: 600)
        try filter.resize(toByteCount: 50_000)
        #expect(filter.byteCount == 50_000 && file.byteCount == 50_000)
        #expect(file.now.calls.suffix(2) == ["resize 600", "resize 50000"])
    }

    @Test func withoutAnOwnerItOnlyPassesOn() throws {
        try filter.writeBytes([1], at: 5000)
        #expect(filter.byteCount == 5001 && file.byteCount == 5001)
        try owned()
        try filter.writeBytes([1], at: 5001)
        try filter.setOwned(false)
        #expect(filter.byteCount == 5002 && file.byteCount == 5002)
        try filter.close()
        #expect(file.now.calls.last == "resize 5002")
    }

    @Test func whatCannotBeAllocatedAheadIsWrittenWithout() throws {
        file.update { $0.refusesZeroes = true }
        try owned()
        try filter.writeBytes([1], at: 1000)
        file.update { $0.refusesZeroes = false }
        try filter.writeBytes([1], at: 7000)
        try filter.grow(toByteCount: 8000)
        #expect(filter.byteCount == 8000 && file.byteCount == 8000)
        #expect(!file.now.calls.contains { $0.hasPrefix("zero") })
        try filter.close()
        #expect(file.byteCount == 8000)
    }

    @Test func aFileThatCannotBeCutIsToldOf() throws {
        try owned()
        try filter.writeBytes([1], at: 1000)
        file.update { $0.refusesCuts = true }
        #expect(throws: ColdframeError.self) { try filter.setOwned(false) }
        // It is the file from now on, as it is.
        #expect(filter.byteCount == file.byteCount)
        try filter.close()
    }

    @Test func writersDoNotLoseWhatTheyWriteToZerosThatComeLate() async throws {
        try owned()
        let filter = filter
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<4 {
                group.addTask {
                    try await BlockingPool.shared.run {
                        for round in 0..<200 {
                            let offset = UInt64(1000 + (round * 4 + number) * 100)
                            try filter.writeBytes([UInt8](repeating: 7, count: 100), at: offset)
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(filter.byteCount == 81_000)
        #expect(file.now.bytes[1000..<81_000].allSatisfy { $0 == 7 })
    }
}
