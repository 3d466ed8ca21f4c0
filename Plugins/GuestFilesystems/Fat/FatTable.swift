import ColdframeKit

/// The file allocation table: which cluster follows a cluster. Any thread.
///
/// Of the table, whose size is the guest's choice, the last pieces that were looked at are kept.
final class FatTable: Sendable {
    static let pieceByteCount: UInt64 = 4096
    static let keptPieceCount = 256

    private let volume: any GuestVolume
    private let geometry: FatGeometry
    private let pieces = RecentValues<UInt64, [UInt8]>(limit: keptPieceCount)

    init(_ volume: any GuestVolume, _ geometry: FatGeometry) {
        self.volume = volume
        self.geometry = geometry
    }

    /// The cluster behind `cluster`, which is one; nil at the end of its chain.
    func next(after cluster: UInt32) throws(ColdframeError) -> UInt32? {
        let entry = try entry(cluster)
        let end: UInt32 =
            switch geometry.width {
            case .fat12: 0xFF8
            case .fat16: 0xFFF8
            case .fat32: 0x0FFF_FFF8
            }
        if entry >= end { return nil }
        guard geometry.isCluster(entry) else {
            throw ColdframeError(
                .corrupt,
                "The table says that cluster \(cluster) is "
                    + (entry == 0
                        ? "free, and a file has it"
                        : entry == end - 1 ? "damaged" : "followed by \(entry), which is no cluster"))
        }
        return entry
    }

    private func entry(_ cluster: UInt32) throws(ColdframeError) -> UInt32 {
        switch geometry.width {
        case .fat12:
            // One and a half bytes each: two entries share the byte in the middle.
            let offset = UInt64(cluster) + UInt64(cluster) / 2
            let pair = UInt32(try byte(offset)) | UInt32(try byte(offset + 1)) << 8
            return cluster % 2 == 0 ? pair & 0xFFF : pair >> 4
        case .fat16:
            let (piece, index) = try piece(at: UInt64(cluster) * 2)
            return UInt32(piece.littleEndian(UInt16.self, at: index))
        case .fat32:
            let (piece, index) = try piece(at: UInt64(cluster) * 4)
            return piece.littleEndian(UInt32.self, at: index) & 0x0FFF_FFFF
        }
    }

    private func byte(_ offset: UInt64) throws(ColdframeError) -> UInt8 {
        let (piece, index) = try piece(at: offset)
        return piece[index]
    }

    /// The piece with the byte at `offset` of the table, which has it: the geometry counts no cluster without an entry.
    private func piece(at offset: UInt64) throws(ColdframeError) -> ([UInt8], Int) {
        let start = offset / Self.pieceByteCount * Self.pieceByteCount
        let piece = try pieces.value(for: start) { () throws(ColdframeError) in
            let count = min(Self.pieceByteCount, geometry.table.upperBound - geometry.table.lowerBound - start)
            return try volume.part(
                byteCount: Int(count), at: geometry.table.lowerBound + start, "A part of the file allocation table")
        }
        return (piece, Int(offset - start))
    }
}
