import ColdframeKit

/// The first 512 bytes of an image. Numbers are little-endian.
///
/// | byte | size | field |
/// |---|---|---|
/// | 0 | 64 | text for people |
/// | 64 | 4 | signature |
/// | 68 | 4 | version: 1.1 |
/// | 76 | 4 | type: 1 grows, 2 is of fixed size, others have a parent |
/// | 340 | 4 | first byte of the block map |
/// | 344 | 4 | first byte of block 0 of the file |
/// | 360 | 4 | 512 |
/// | 368 | 8 | size of the disk |
/// | 376 | 4 | bytes of a block |
/// | 380 | 4 | bytes before each block for other uses: 0 |
/// | 384 | 4 | blocks of the disk: entries of the map |
/// | 388 | 4 | blocks of the file that have been given out |
/// | 392 | 16 | UUID; behind it those of the last change, the previous image and the parent |
struct VdiHeader: Sendable, Equatable {
    static let byteCount = 512
    static let signature: UInt32 = 0xBEDA_107F
    static let allocatedCountOffset: UInt64 = 388
    /// Blocks of the disk: 64 MiB of memory, a disk of 16 TiB.
    static let blockCountLimit: UInt32 = 16 << 20

    var isFixed: Bool
    var mapOffset: UInt64
    var dataOffset: UInt64
    /// A multiple of 512.
    var diskByteCount: UInt64
    var blockByteCount: UInt64
    var blockCount: UInt32
    var allocatedCount: UInt32

    /// Reads and checks the header. What a rule of the format forbids is `.corrupt`, what this module does not do
    /// `.unsupported`.
    init(_ bytes: [UInt8]) throws(ColdframeError) {
        func number(_ offset: Int) -> UInt32 { bytes.littleEndian(UInt32.self, at: offset) }
        guard number(64) == Self.signature else {
            throw ColdframeError(.corrupt, "This is no vdi image: it has the signature \(number(64))")
        }
        guard number(68) == 0x0001_0001 else {
            throw ColdframeError(
                .unsupported, "The image has version \(number(68) >> 16).\(number(68) & 0xFFFF) of vdi; 1.1 is read")
        }
        let type = number(76)
        guard type == 1 || type == 2, bytes[424..<456].allSatisfy({ $0 == 0 }) else {
            throw ColdframeError(
                .unsupported, "The image has a parent (type \(type)): merge them first, for example with VBoxManage")
        }
        isFixed = type == 2
        mapOffset = UInt64(number(340))
        dataOffset = UInt64(number(344))
        blockByteCount = UInt64(number(376))
        blockCount = number(384)
        allocatedCount = number(388)
        guard number(360) == 512, number(380) == 0 else {
            throw ColdframeError(
                .unsupported, "The image has sectors of \(number(360)) bytes and \(number(380)) more for each block")
        }
        guard blockByteCount.nonzeroBitCount == 1, (4096...(64 << 20)).contains(blockByteCount) else {
            throw ColdframeError(
                .unsupported,
                "The image has blocks of \(blockByteCount) bytes; powers of two from 4096 to 64 MiB are read")
        }
        guard blockCount <= Self.blockCountLimit else {
            throw ColdframeError(
                .unsupported, "The image has \(blockCount) blocks; up to \(Self.blockCountLimit) are read")
        }
        let size = bytes.littleEndian(UInt64.self, at: 368)
        guard size <= UInt64(blockCount) * blockByteCount else {
            throw ColdframeError(
                .corrupt, "The disk of \(size) bytes is larger than its \(blockCount) blocks of \(blockByteCount)")
        }
        // Some tools write odd sizes.
        diskByteCount = (size + 511) & ~511
        guard mapOffset % 512 == 0, dataOffset % 512 == 0, mapOffset >= UInt64(Self.byteCount),
            dataOffset >= mapOffset + 4 * UInt64(blockCount)
        else {
            throw ColdframeError(
                .corrupt,
                "The block map at \(mapOffset) with \(blockCount) entries and the data at \(dataOffset) are in each "
                    + "other's way")
        }
    }

    init(diskByteCount: UInt64, blockByteCount: UInt64, blockCount: UInt32, isFixed: Bool) {
        self.isFixed = isFixed
        self.diskByteCount = diskByteCount
        self.blockByteCount = blockByteCount
        self.blockCount = blockCount
        mapOffset = UInt64(Self.byteCount)
        dataOffset = mapOffset + (4 * UInt64(blockCount) + 511) & ~511
        allocatedCount = isFixed ? blockCount : 0
    }

    /// - Parameters: 16 bytes each.
    func encoded(imageUUID: [UInt8], changeUUID: [UInt8]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.replaceSubrange(0..<26, with: Array("<<< VirtualBox disk image>".utf8))
        for (offset, value) in [
            (64, Self.signature), (68, 0x0001_0001), (72, 0x180), (76, isFixed ? 2 : 1), (340, UInt32(mapOffset)),
            (344, UInt32(dataOffset)), (360, 512), (376, UInt32(blockByteCount)), (384, blockCount),
            (388, allocatedCount),
        ] { bytes.storeLittleEndian(value, at: offset) }
        bytes.storeLittleEndian(diskByteCount, at: 368)
        bytes.replaceSubrange(392..<408, with: imageUUID)
        bytes.replaceSubrange(408..<424, with: changeUUID)
        return bytes
    }
}
