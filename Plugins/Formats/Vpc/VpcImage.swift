import ColdframeKit

/// What is known of an open vpc image: its size, and for one that grows where its blocks are. Read and checked at the
/// opening; nothing changes afterwards.
struct VpcImage: Sendable {
    let file: BlockNode
    let footer: VpcFooter
    /// nil for a disk of fixed size, which lies at the beginning of the file.
    let blocks: Blocks?

    /// Blocks of an image that grows: each lies behind a bitmap of its sectors, in whole sectors of the file.
    struct Blocks: Sendable {
        /// A power of two.
        let byteCount: UInt64
        let bitmapByteCount: UInt64
        /// First sector of each block's bitmap.
        let sectors: [UInt32]
    }

    static let unallocated: UInt32 = 0xFFFF_FFFF
    /// Blocks of the disk: 16 MiB of memory. In blocks of 2 MiB the largest disk has a quarter of it.
    static let blockCountLimit: UInt64 = 4 << 20

    /// Blocks.
    init(_ file: BlockNode) throws(ColdframeError) {
        self.file = file
        let size = file.byteCount
        let head = try file.direct.part(byteCount: VpcFooter.byteCount, at: 0, "The first sector")
        if head.starts(with: VpcFooter.cookie) {
            footer = try VpcFooter(head)
            guard footer.kind == .dynamic else {
                throw ColdframeError(.corrupt, "An image of fixed size has its footer at its beginning")
            }
            blocks = try Blocks(file, footer)
        } else {
            let start = size - UInt64(VpcFooter.byteCount)
            footer = try VpcFooter(file.direct.part(byteCount: VpcFooter.byteCount, at: start, "The footer"))
            guard footer.kind == .fixed else {
                throw ColdframeError(.corrupt, "An image that grows has no footer at its beginning")
            }
            guard footer.diskByteCount <= start else {
                throw ColdframeError(
                    .corrupt,
                    "The disk of \(footer.diskByteCount) bytes does not fit into the file of \(size): it was cut short")
            }
            blocks = nil
        }
    }

    /// Where the beginning of a range lies.
    func place(_ range: Range<UInt64>) -> Place {
        let byteCount = range.upperBound - range.lowerBound
        guard let blocks else { return Place(byteCount: byteCount, kind: .data(fileOffset: range.lowerBound)) }
        let size = blocks.byteCount
        let first = range.lowerBound / size
        var next = first + 1
        let sector = blocks.sectors[Int(first)]
        if sector != Self.unallocated {
            let start = UInt64(sector) * 512 + blocks.bitmapByteCount
            return Place(
                byteCount: min(byteCount, next * size - range.lowerBound),
                kind: .data(fileOffset: start + range.lowerBound % size))
        }
        while next * size < range.upperBound, blocks.sectors[Int(next)] == Self.unallocated { next += 1 }
        return Place(byteCount: min(byteCount, next * size - range.lowerBound), kind: .zero(allocated: false))
    }
}

extension VpcImage.Blocks {
    /// Reads the header at `footer.headerOffset` and the table that it names:
    ///
    /// | byte | size | field |
    /// |---|---|---|
    /// | 0 | 8 | `cxsparse` |
    /// | 16 | 8 | first byte of the table |
    /// | 28 | 4 | entries of the table |
    /// | 32 | 4 | bytes of a block |
    /// | 36 | 4 | checksum, as the footer's |
    fileprivate init(_ file: BlockNode, _ footer: VpcFooter) throws(ColdframeError) {
        let header = try file.direct.part(byteCount: 1024, at: footer.headerOffset, "The header")
        guard header.starts(with: Array("cxsparse".utf8)) else {
            throw ColdframeError(.corrupt, "There is no header at \(footer.headerOffset)")
        }
        guard VpcFooter.checksum(header, at: 36) == header.bigEndian(UInt32.self, at: 36) else {
            throw ColdframeError(.corrupt, "The header at \(footer.headerOffset) does not match its checksum")
        }
        byteCount = UInt64(header.bigEndian(UInt32.self, at: 32))
        guard byteCount.nonzeroBitCount == 1, byteCount >= 512 else {
            throw ColdframeError(.corrupt, "The image has blocks of \(byteCount) bytes, which is no power of two")
        }
        bitmapByteCount = (byteCount / 512 / 8 + 511) & ~511
        // Entries behind the disk's end say nothing.
        let count = (footer.diskByteCount + byteCount - 1) / byteCount
        guard count <= VpcImage.blockCountLimit else {
            throw ColdframeError(
                .unsupported,
                "The disk has \(count) blocks of \(byteCount) bytes; up to \(VpcImage.blockCountLimit) are read")
        }
        let entryCount = header.bigEndian(UInt32.self, at: 28)
        guard count <= UInt64(entryCount) else {
            throw ColdframeError(.corrupt, "The table of \(entryCount) blocks is too short for the disk's \(count)")
        }
        let table = try file.direct.part(
            byteCount: Int(count) * 4, at: header.bigEndian(UInt64.self, at: 16), "The table of blocks")
        sectors = table.withBytes { bytes in (0..<Int(count)).map { bytes.bigEndian(UInt32.self, at: 4 * $0) } }
    }
}
