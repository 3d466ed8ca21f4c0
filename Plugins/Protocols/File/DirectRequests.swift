import LinuxSystem
import Synchronization

/// Requests of any alignment on a file that was opened past the page cache (O_DIRECT), which takes only whole blocks
/// from aligned memory.
///
/// Aligned requests go straight to the file. Others go through an aligned buffer in pieces; a write that covers only
/// part of a block reads it first, alone.
final class DirectRequests: Sendable {
    private let file: Descriptor
    /// Bytes; a power of two.
    private let unit: UInt64
    private let buffers = Locked<[BounceBuffer]>([])
    /// Held while part of a block is replaced, and while the file grows.
    private let exclusive = PlainMutex()

    private static let pieceByteCount: UInt64 = 1 << 20
    private static let keptBufferCount = 8

    init(file: Descriptor, unit: Int) {
        self.file = file
        self.unit = UInt64(unit)
    }

    /// Fills `buffer`; less than all only at the end of the file. Returns the bytes read.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        if isAligned(UnsafeRawBufferPointer(buffer), offset) { return try readWhole(into: buffer, at: offset) }
        let bounce = takeBuffer()
        defer { giveBack(bounce) }
        var done = 0
        while done < buffer.count {
            let position = offset + UInt64(done)
            let start = position & ~(unit - 1)
            let skipped = Int(position - start)
            let count = min(buffer.count - done, Int(Self.pieceByteCount) - skipped)
            let piece = bounce.prefix(roundUp(UInt64(skipped + count)))
            let got = try readWhole(into: piece, at: start)
            let useful = min(max(got - skipped, 0), count)
            UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + useful])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: piece[skipped..<skipped + useful]))
            done += useful
            if useful < count { break }
        }
        return done
    }

    /// Writes all of `buffer` and raises `size` to its end. The file ends where the disk does, not at the next block.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, size: borrowing Atomic<UInt64>) throws(SystemError)
    {
        if buffer.isEmpty { return }
        let end = offset + UInt64(buffer.count)
        if isAligned(buffer, offset), end <= size.load(ordering: .acquiring) {
            return try file.pwriteAll(buffer, at: offset)
        }
        exclusive.lock()
        defer { exclusive.unlock() }
        let bounce = takeBuffer()
        defer { giveBack(bounce) }
        var done = 0
        while done < buffer.count {
            let position = offset + UInt64(done)
            let start = position & ~(unit - 1)
            let skipped = Int(position - start)
            let count = min(buffer.count - done, Int(Self.pieceByteCount) - skipped)
            let piece = bounce.prefix(roundUp(UInt64(skipped + count)))
            try fillEdges(of: piece, keeping: skipped..<skipped + count, at: start)
            UnsafeMutableRawBufferPointer(rebasing: piece[skipped..<skipped + count])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[done..<done + count]))
            try file.pwriteAll(UnsafeRawBufferPointer(piece), at: start)
            done += count
        }
        let known = max(size.load(ordering: .acquiring), end)
        // Only the write that reaches the last block can have made the file longer than the disk.
        if roundUp64(end) > known, try file.status().isRegularFile { try file.truncate(toByteCount: known) }
        size.store(known, ordering: .releasing)
    }

    /// Makes the file at least `end` long, with a hole, and raises `size`.
    func grow(to end: UInt64, size: borrowing Atomic<UInt64>) throws(SystemError) {
        exclusive.lock()
        defer { exclusive.unlock() }
        if end <= size.load(ordering: .acquiring) { return }
        try file.truncate(toByteCount: end)
        size.store(end, ordering: .releasing)
    }

    /// Reads what the first and last block of `piece` hold outside `kept`; zeros behind the end of the file.
    private func fillEdges(
        of piece: UnsafeMutableRawBufferPointer, keeping kept: Range<Int>, at start: UInt64
    ) throws(SystemError) {
        let block = Int(unit)
        if kept.lowerBound > 0 { try fill(piece, 0..<block, at: start) }
        if kept.upperBound < piece.count, kept.lowerBound == 0 || piece.count > block {
            try fill(piece, piece.count - block..<piece.count, at: start)
        }
    }

    private func fill(_ piece: UnsafeMutableRawBufferPointer, _ range: Range<Int>, at start: UInt64) throws(SystemError)
    {
        let block = UnsafeMutableRawBufferPointer(rebasing: piece[range])
        let got = try readWhole(into: block, at: start + UInt64(range.lowerBound))
        UnsafeMutableRawBufferPointer(rebasing: block[got...]).initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Aligned. A read that ends inside a block has met the end of the file: the rest would be unaligned.
    private func readWhole(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = try file.pread(into: rest, at: offset + UInt64(done))
            done += count
            if count == 0 || UInt64(count) & (unit - 1) != 0 { break }
        }
        return done
    }

    private func isAligned(_ buffer: UnsafeRawBufferPointer, _ offset: UInt64) -> Bool {
        let address = buffer.baseAddress.map { UInt64(UInt(bitPattern: $0)) } ?? 0
        return (address | offset | UInt64(buffer.count)) & (unit - 1) == 0
    }

    private func roundUp(_ count: UInt64) -> Int { Int((count + unit - 1) & ~(unit - 1)) }

    private func roundUp64(_ position: UInt64) -> UInt64 { (position + unit - 1) & ~(unit - 1) }

    private func takeBuffer() -> BounceBuffer {
        buffers.withLock { $0.popLast() } ?? BounceBuffer(byteCount: Int(Self.pieceByteCount))
    }

    private func giveBack(_ buffer: BounceBuffer) {
        buffers.withLock { if $0.count < Self.keptBufferCount { $0.append(buffer) } }
    }
}

/// Aligned memory, used by one request at a time.
private final class BounceBuffer: @unchecked Sendable {
    // Unchecked: the pool hands it to one thread at a time.
    private let memory: UnsafeMutableRawBufferPointer

    init(byteCount: Int) {
        memory = .allocate(byteCount: byteCount, alignment: 4096)
    }

    deinit { memory.deallocate() }

    func prefix(_ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[..<count])
    }
}
