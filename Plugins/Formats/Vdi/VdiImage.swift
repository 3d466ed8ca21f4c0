import ColdframeKit

/// A vdi image as it was found: header and block map, read and checked, nothing written.
struct VdiImage: Sendable {
    let file: BlockNode
    let header: VdiHeader
    /// For each block of the disk its block of the file, or one of the marks.
    let entries: [UInt32]

    /// Never written; reads as zeros.
    static let unallocated: UInt32 = 0xFFFF_FFFF
    /// Given back; reads as zeros.
    static let discarded: UInt32 = 0xFFFF_FFFE

    static func isAllocated(_ entry: UInt32) -> Bool { entry < discarded }

    /// Blocks.
    init(_ file: BlockNode) throws(ColdframeError) {
        self.file = file
        header = try VdiHeader(file.direct.part(byteCount: VdiHeader.byteCount, at: 0, "The header"))
        let count = Int(header.blockCount)
        let bytes = try file.direct.part(byteCount: 4 * count, at: header.mapOffset, "The block map")
        entries = bytes.withBytes { buffer in (0..<count).map { buffer.littleEndian(UInt32.self, at: 4 * $0) } }
    }

    /// First byte of a block of the file.
    func offset(ofBlock index: UInt32) -> UInt64 { header.dataOffset + UInt64(index) * header.blockByteCount }

    /// Which blocks of the file are in use. Throws if the image must not be written: two blocks of the disk share one of
    /// the file, or one lies outside of it.
    func usedBlocks() throws(ColdframeError) -> BlockSet {
        var used = BlockSet(count: Int(header.blockCount))
        for (block, entry) in entries.enumerated() where Self.isAllocated(entry) {
            guard entry < header.blockCount, used.insert(entry) else {
                throw ColdframeError(
                    .corrupt,
                    "Block \(block) of the disk lies in block \(entry) of the file, which is another's or beyond the "
                        + "\(header.blockCount) that there can be: the image can be read, not written")
            }
            guard offset(ofBlock: entry + 1) <= file.byteCount else {
                throw ColdframeError(
                    .corrupt,
                    "Block \(block) of the disk ends at \(offset(ofBlock: entry + 1)), behind the file's end at "
                        + "\(file.byteCount): the file was cut short, and can be read, not written")
            }
        }
        return used
    }
}

/// A set of block numbers: one bit each.
struct BlockSet: Sendable {
    private var words: [UInt64]
    private let count: Int
    /// All before it are in the set.
    private var hint = 0
    /// One more than the greatest member.
    private(set) var end: UInt32 = 0

    init(count: Int) {
        self.count = count
        words = [UInt64](repeating: 0, count: (count + 63) / 64)
    }

    /// False if it was in the set.
    mutating func insert(_ block: UInt32) -> Bool {
        let bit: UInt64 = 1 << UInt64(block & 63)
        guard words[Int(block >> 6)] & bit == 0 else { return false }
        words[Int(block >> 6)] |= bit
        end = max(end, block + 1)
        return true
    }

    /// Puts the lowest number that is not in the set into it; nil if all are.
    mutating func takeLowest() -> UInt32? {
        while hint < words.count, words[hint] == .max { hint += 1 }
        guard hint < words.count else { return nil }
        let block = hint * 64 + (~words[hint]).trailingZeroBitCount
        guard block < count else { return nil }
        _ = insert(UInt32(block))
        return UInt32(block)
    }
}
