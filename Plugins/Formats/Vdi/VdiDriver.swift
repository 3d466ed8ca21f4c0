import ColdframeKit

/// An open vdi image. Any number of threads: the map is looked at under a short lock, and blocks are given out one at a
/// time; the guest's data is read and written outside of both.
final class VdiDriver: PlacedDriver, HoleBearing {
    let driverName = "vdi"
    let isReadOnly: Bool
    let threadModel = ThreadModel.parallel
    private let image: VdiImage
    private let map: BlockMap
    /// nil if read-only.
    private let allocation: BlockAllocation?

    /// Throws if the image must not be written and is to be.
    init(_ image: VdiImage, isReadOnly: Bool) throws(ColdframeError) {
        self.image = image
        self.isReadOnly = isReadOnly
        map = BlockMap(image.entries)
        allocation = isReadOnly ? nil : try BlockAllocation(image, map)
    }

    var file: BlockNode { image.file }
    var byteCount: UInt64 { image.header.diskByteCount }
    var clusterByteCount: UInt32? { UInt32(image.header.blockByteCount) }
    /// A fixed image is made as one hole.
    func fileWithHoles() -> BlockNode? { image.header.isFixed ? file : nil }

    func information() throws(ColdframeError) -> BlockInformation {
        BlockInformation(allocatedByteCount: try file.driver.information().allocatedByteCount)
    }

    func place(_ range: Range<UInt64>) throws(ColdframeError) -> Place {
        let size = image.header.blockByteCount
        let block = range.lowerBound / size
        let run = map.run(from: Int(block), limit: Int((range.upperBound - 1) / size - block) + 1)
        let end = min(range.upperBound, (block + UInt64(run.blockCount)) * size)
        let kind: Place.Kind =
            VdiImage.isAllocated(run.entry)
            ? .data(fileOffset: image.offset(ofBlock: run.entry) + range.lowerBound % size)
            : .zero(allocated: run.entry == VdiImage.discarded)
        return Place(byteCount: end - range.lowerBound, kind: kind)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let allocation = try writable()
        var done = 0
        var isNew = false
        while done < buffer.count {
            let start = offset + UInt64(done)
            let place = try place(start..<offset + UInt64(buffer.count))
            guard case .data(let fileOffset) = place.kind else {
                try allocation.allocate(Int(start / image.header.blockByteCount))
                isNew = true
                continue
            }
            let part = UnsafeRawBufferPointer(rebasing: buffer[done..<done + Int(place.byteCount)])
            try file.direct.write(part, at: fileOffset, flags: flags)
            done += part.count
        }
        // The data is on stable storage; the entries that lead to it must be, too.
        if isNew, flags.contains(.forceUnitAccess) { try file.direct.flush() }
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        _ = try writable()
        try forEachPlaced(offset..<offset + byteCount) { (fileOffset, byteCount) throws(ColdframeError) in
            try file.direct.writeZeroes(at: fileOffset, byteCount: byteCount, flags: flags)
        }
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        _ = try writable()
        try forEachPlaced(offset..<offset + byteCount) { (fileOffset, byteCount) throws(ColdframeError) in
            try file.direct.discard(at: fileOffset, byteCount: byteCount)
        }
    }

    /// What has no place reads as zeros already.
    private func forEachPlaced(
        _ range: Range<UInt64>, _ body: (_ fileOffset: UInt64, _ byteCount: UInt64) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        var next = range.lowerBound
        while next < range.upperBound {
            let place = try place(next..<range.upperBound)
            if case .data(let fileOffset) = place.kind { try body(fileOffset, place.byteCount) }
            next += place.byteCount
        }
    }

    func flush() throws(ColdframeError) {
        if !isReadOnly { try file.direct.flush() }
    }

    /// The file belongs to the graph, which closes it.
    func close() throws(ColdframeError) {
        guard let allocation else { return }
        try allocation.finish()
        try file.direct.flush()
    }

    private func writable() throws(ColdframeError) -> BlockAllocation {
        guard let allocation else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is open read-only")
        }
        return allocation
    }
}
