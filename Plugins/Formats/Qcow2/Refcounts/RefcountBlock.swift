import ColdframeKit

/// One refcount block in memory, in the image's own encoding. Not thread-safe.
final class RefcountBlock {
    let byteCount: Int
    let order: Int
    let bytes: UnsafeMutableRawBufferPointer

    /// All refcounts 0.
    init(geometry: Geometry) {
        byteCount = Int(geometry.clusterByteCount)
        order = geometry.refcountOrder
        bytes = .allocate(byteCount: byteCount, alignment: 16)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    init(copying other: RefcountBlock) {
        byteCount = other.byteCount
        order = other.order
        bytes = .allocate(byteCount: byteCount, alignment: 16)
        bytes.copyMemory(from: UnsafeRawBufferPointer(other.bytes))
    }

    deinit { bytes.deallocate() }

    /// The format text's section "Host cluster management": big endian from 16 bits on, least significant bits first
    /// below 8. `index` lies within the block.
    /// Inlined: loops go over all clusters of an image.
    subscript(index: Int) -> UInt64 {
        @inline(__always) get {
            switch order {
            case 4: return UInt64(UInt16(bigEndian: bytes.load(fromByteOffset: index * 2, as: UInt16.self)))
            case 3: return UInt64(bytes[index])
            case 5: return UInt64(UInt32(bigEndian: bytes.load(fromByteOffset: index * 4, as: UInt32.self)))
            case 6: return UInt64(bigEndian: bytes.load(fromByteOffset: index * 8, as: UInt64.self))
            default:
                let width = 1 << order
                let bit = index << order
                return UInt64(bytes[bit >> 3]) >> UInt64(bit & 7) & (1 << UInt64(width) - 1)
            }
        }
        @inline(__always) set {
            switch order {
            case 4: bytes.storeBigEndian(UInt16(truncatingIfNeeded: newValue), at: index * 2)
            case 3: bytes[index] = UInt8(truncatingIfNeeded: newValue)
            case 5: bytes.storeBigEndian(UInt32(truncatingIfNeeded: newValue), at: index * 4)
            case 6: bytes.storeBigEndian(newValue, at: index * 8)
            default:
                let mask = (UInt8(1) << UInt8(1 << order)) - 1
                let bit = index << order
                let shift = UInt8(bit & 7)
                bytes[bit >> 3] =
                    bytes[bit >> 3] & ~(mask << shift) | (UInt8(truncatingIfNeeded: newValue) & mask) << shift
            }
        }
    }

    /// Bytes that hold the refcounts of `indices`.
    func byteRange(_ indices: Range<Int>) -> Range<Int> {
        (indices.lowerBound << order) >> 3..<((indices.upperBound << order) + 7) >> 3
    }

    /// Writes the block to its place in the image.
    func write(to file: ImageFile, at offset: HostOffset) throws(ColdframeError) {
        // The memory goes with the object, which nothing else may hold.
        defer { withExtendedLifetime(self) {} }
        try file.write(UnsafeRawBufferPointer(bytes), at: offset)
    }
}
