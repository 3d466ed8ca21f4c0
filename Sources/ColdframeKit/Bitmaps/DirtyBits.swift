/// A set of bits, one for each `granularity` bytes of a disk. A plain value: whoever shares one locks it.
///
/// In the order of its bytes a bit set is what qcow2 stores: bit `i` is bit `i % 8` of byte `i / 8`.
public struct DirtyBits: Sendable, Equatable {
    /// Size of the disk in bytes.
    public private(set) var diskByteCount: UInt64
    /// Bytes of disk that one bit stands for; a power of two.
    public let granularity: UInt32
    /// Number of bits that are set.
    public private(set) var setCount: UInt64 = 0
    private var words: ContiguousArray<UInt64>
    private let shift: UInt64

    public init(diskByteCount: UInt64, granularity: UInt32) {
        precondition(granularity.nonzeroBitCount == 1, "granularity \(granularity) is no power of two")
        self.diskByteCount = diskByteCount
        self.granularity = granularity
        shift = UInt64(granularity.trailingZeroBitCount)
        words = ContiguousArray(
            repeating: 0, count: Self.wordCount(bitCount: Self.bitCount(diskByteCount, granularity)))
    }

    private static func bitCount(_ diskByteCount: UInt64, _ granularity: UInt32) -> UInt64 {
        diskByteCount / UInt64(granularity) + (diskByteCount % UInt64(granularity) == 0 ? 0 : 1)
    }

    private static func wordCount(bitCount: UInt64) -> Int { Int((bitCount + 63) / 64) }

    public var bitCount: UInt64 { Self.bitCount(diskByteCount, granularity) }

    // MARK: Ranges, in bytes of the disk

    /// Sets all bits that the range touches. What lies behind the disk's end is ignored.
    public mutating func set(at offset: UInt64, byteCount: UInt64) {
        change(at: offset, byteCount: byteCount) { $0 | $1 }
    }

    /// Clears all bits that the range touches.
    public mutating func clear(at offset: UInt64, byteCount: UInt64) {
        change(at: offset, byteCount: byteCount) { $0 & ~$1 }
    }

    private mutating func change(at offset: UInt64, byteCount: UInt64, _ combine: (UInt64, UInt64) -> UInt64) {
        guard byteCount > 0, offset < diskByteCount else { return }
        let last = (min(byteCount, diskByteCount - offset) - 1 + offset) >> shift
        var bit = offset >> shift
        while bit <= last {
            let index = Int(bit / 64)
            let low = bit % 64
            let high = min(last - UInt64(index) * 64, 63)
            let mask = (UInt64.max << low) & (UInt64.max >> (63 - high))
            let old = words[index]
            let new = combine(old, mask)
            words[index] = new
            setCount = setCount &+ UInt64(new.nonzeroBitCount) &- UInt64(old.nonzeroBitCount)
            bit = UInt64(index + 1) * 64
        }
    }

    /// Whether the bit of this byte is set.
    public func isSet(at offset: UInt64) -> Bool {
        guard offset < diskByteCount else { return false }
        let bit = offset >> shift
        return words[Int(bit / 64)] & (1 << (bit % 64)) != 0
    }

    /// The first run of set bits that touches `offset` or lies behind it, in bytes: not before `offset`, not behind
    /// `end` or the disk, not longer than `limit`.
    public func nextDirty(from offset: UInt64, to end: UInt64 = .max, limit: UInt64 = .max) -> Range<UInt64>? {
        let end = min(end, diskByteCount)
        guard offset < end, let first = firstBit(from: offset >> shift, isSet: true) else { return nil }
        let start = max(offset, first << shift)
        guard start < end else { return nil }
        let stop = firstBit(from: first, isSet: false).map { $0 << shift } ?? diskByteCount
        return start..<min(end, stop, limit < end - start ? start + limit : end)
    }

    /// The first byte at `offset` or behind it whose bit is clear, or nil.
    public func nextClean(from offset: UInt64) -> UInt64? {
        guard offset < diskByteCount, let bit = firstBit(from: offset >> shift, isSet: false) else { return nil }
        let start = max(offset, bit << shift)
        return start < diskByteCount ? start : nil
    }

    private func firstBit(from bit: UInt64, isSet: Bool) -> UInt64? {
        let count = bitCount
        guard bit < count else { return nil }
        var index = Int(bit / 64)
        var word = (isSet ? words[index] : ~words[index]) & (UInt64.max << (bit % 64))
        while word == 0 {
            index += 1
            guard index < words.count else { return nil }
            word = isSet ? words[index] : ~words[index]
        }
        let found = UInt64(index) * 64 + UInt64(word.trailingZeroBitCount)
        return found < count ? found : nil
    }

    // MARK: Whole sets

    /// Adds what is set in a set of the same disk size, whatever its granularity.
    public mutating func formUnion(_ other: DirtyBits) {
        if other.granularity == granularity, other.words.count == words.count {
            var count: UInt64 = 0
            for index in words.indices {
                words[index] |= other.words[index]
                count += UInt64(words[index].nonzeroBitCount)
            }
            setCount = count
            return
        }
        var offset: UInt64 = 0
        while let run = other.nextDirty(from: offset) {
            set(at: run.lowerBound, byteCount: run.upperBound - run.lowerBound)
            offset = run.upperBound
        }
    }

    /// The disk has another size: bits behind a smaller end go, those behind the old end are clear.
    public mutating func resize(toDiskByteCount byteCount: UInt64) {
        let newCount = Self.bitCount(byteCount, granularity)
        if newCount < bitCount {
            clear(at: newCount << shift, byteCount: .max)
        }
        let wordCount = Self.wordCount(bitCount: newCount)
        if wordCount < words.count {
            words.removeLast(words.count - wordCount)
        } else {
            words.append(contentsOf: repeatElement(0, count: wordCount - words.count))
        }
        diskByteCount = byteCount
    }

    // MARK: As bytes

    /// Bytes that the set takes when stored.
    public var storedByteCount: Int { Int((bitCount + 7) / 8) }

    /// Copies stored bytes out, from byte `position` on; what lies behind the end is zero.
    public func store(into buffer: UnsafeMutableRawBufferPointer, from position: Int) {
        for index in buffer.indices {
            let byte = position + index
            let word = byte / 8
            buffer[index] = word < words.count ? UInt8(truncatingIfNeeded: words[word] >> UInt64(byte % 8 * 8)) : 0
        }
    }

    /// Adds the bits of stored bytes, from byte `position` on. Bits behind the disk's end are ignored.
    public mutating func load(_ buffer: UnsafeRawBufferPointer, at position: Int) {
        for index in buffer.indices where buffer[index] != 0 {
            for bit in 0..<8 where buffer[index] & (1 << bit) != 0 {
                let number = UInt64(position + index) * 8 + UInt64(bit)
                if number < bitCount { set(at: number << shift, byteCount: 1) }
            }
        }
    }
}
