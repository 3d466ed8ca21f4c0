import ColdframeKit
import LinuxSystem

/// One piece of a disk, ready to be sent: plain values, so that a read copies no references.
struct Piece {
    enum Kind {
        case zero
        /// Lies at `address`.
        case mapped
        /// Must be read through the driver.
        case copied
    }

    var kind: Kind
    /// First byte, in the disk.
    var offset: UInt64
    var byteCount: UInt64
    /// Where the piece is mapped; meaningless unless `kind` is `.mapped`.
    var address: UnsafeRawPointer
    var hostOffset: UInt64
    /// The map keeps the files until it is dropped; the pieces are used under it only.
    var file: Unmanaged<MappedFile>?

    var end: UInt64 { offset + byteCount }
}

/// A range of the disk as pieces in order, without gaps. Immutable.
final class PieceRun: @unchecked Sendable {
    // Unchecked: nothing in it changes; what the pieces point to is kept by the map that made the run.
    let start: UInt64
    let end: UInt64
    let pieces: [Piece]

    init(start: UInt64, end: UInt64, pieces: [Piece]) {
        self.start = start
        self.end = end
        self.pieces = pieces
    }

    /// Index of the piece that holds `offset`, which lies within the run.
    func index(of offset: UInt64) -> Int {
        var low = 0
        var high = pieces.count - 1
        while low < high {
            let middle = (low + high + 1) / 2
            if pieces[middle].offset <= offset { low = middle } else { high = middle - 1 }
        }
        return low
    }
}

/// Where the content of one snapshot's disk lies, kept while it is open. A snapshot never changes, so what the driver
/// said once stays true; how much is kept is bounded.
final class ExtentMap: Sendable {
    /// The disk is looked up in windows of this size: 128 clusters of 64 KiB.
    private static let windowByteCount: UInt64 = 8 << 20
    private static let piecesPerRun = 256
    private static let slotCount = 256

    private let node: BlockNode
    private let byteCount: UInt64
    private let slots = Locked<[PieceRun?]>(Array(repeating: nil, count: slotCount))
    private let files = Locked<[ObjectIdentifier: MappedFile?]>([:])

    init(node: BlockNode) {
        self.node = node
        byteCount = node.byteCount
    }

    /// The run that holds `offset`, which lies within the disk.
    func run(at offset: UInt64) throws(ColdframeError) -> PieceRun {
        let window = offset / Self.windowByteCount
        let slot = Int(window % UInt64(Self.slotCount))
        if let run = slots.withLock({ $0[slot] }), run.start <= offset, offset < run.end { return run }
        let start = window * Self.windowByteCount
        let length = min(Self.windowByteCount, byteCount - start)
        var run = try fetch(start, length)
        // So many pieces that the list ends before the place asked for: begin there.
        if run.end <= offset { run = try fetch(offset, start + length - offset) }
        slots.withLock { $0[slot] = run }
        return run
    }

    /// Forgets everything: the mappings go before the driver closes the files under them.
    func drop() {
        slots.withLock { $0 = Array(repeating: nil, count: Self.slotCount) }
        files.withLock { $0 = [:] }
    }

    private func fetch(_ start: UInt64, _ length: UInt64) throws(ColdframeError) -> PieceRun {
        let extents = try node.extents(at: start, byteCount: length, limit: Self.piecesPerRun)
        var pieces: [Piece] = []
        pieces.reserveCapacity(extents.count)
        var position = start
        for extent in extents {
            // A reply made of a wrong list would show somebody else's data.
            guard extent.offset == position, extent.byteCount > 0, extent.byteCount <= start + length - position else {
                throw ColdframeError(.corrupt, "Driver '\(node.driver.driverName)' described its extents wrongly")
            }
            pieces.append(piece(extent))
            position = extent.end
        }
        guard position > start else {
            throw ColdframeError(.corrupt, "Driver '\(node.driver.driverName)' described no extent at \(start)")
        }
        return PieceRun(start: start, end: position, pieces: pieces)
    }

    private func piece(_ extent: Extent) -> Piece {
        switch extent.kind {
        case .zero:
            return Piece(
                kind: .zero, offset: extent.offset, byteCount: extent.byteCount, address: ZeroArea.pointer,
                hostOffset: 0, file: nil)
        case .data(let source, let hostOffset):
            if let file = file(of: source), let address = file.address(of: hostOffset, byteCount: extent.byteCount) {
                return Piece(
                    kind: .mapped, offset: extent.offset, byteCount: extent.byteCount, address: address,
                    hostOffset: hostOffset, file: Unmanaged.passUnretained(file))
            }
        case .opaque: break
        }
        return Piece(
            kind: .copied, offset: extent.offset, byteCount: extent.byteCount, address: ZeroArea.pointer,
            hostOffset: 0, file: nil)
    }

    private func file(of source: any ExtentSource) -> MappedFile? {
        files.withLock { files in
            if let known = files[ObjectIdentifier(source)] { return known }
            let file = MappedFile(source)
            files[ObjectIdentifier(source)] = .some(file)
            return file
        }
    }
}
