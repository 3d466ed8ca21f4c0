import ColdframeKit

/// Reads a disk through its map: the active one's or a snapshot's.
///
/// Any number of threads. What the map has no entry for comes from the backing node, or is zeros.
final class ClusterReader: Sendable {
    let map: ClusterMap
    private let backingSlot: ChildSlot
    private let file: ImageFile
    private let decompressor: Decompressor

    /// `file` is where data lies: the image file or an external one.
    init(map: ClusterMap, file: ImageFile, backing: ChildSlot, compression: Compression) {
        self.map = map
        self.file = file
        backingSlot = backing
        decompressor = Decompressor(file: map.file, geometry: map.geometry, compression: compression)
    }

    private var backing: BlockNode? { backingSlot.current }

    func forgetCompressed() { decompressor.forget() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: GuestOffset) throws(ColdframeError) {
        var done = 0
        while done < buffer.count {
            let position = GuestOffset(offset.rawValue + UInt64(done))
            let run = try map.lookup(position, byteCount: UInt64(buffer.count - done))
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + Int(run.byteCount)])
            switch run.kind {
            case .data(let host):
                file.announce(.readGuestData)
                try file.readData(into: part, at: host)
            case .zero: part.initializeMemory(as: UInt8.self, repeating: 0)
            case .unallocated: try readBacking(into: part, at: position.rawValue)
            case .compressed(let range, let skip): try decompressor.read(into: part, range, skip: skip)
            }
            done += part.count
        }
    }

    /// A backing file may be shorter than its overlay: behind its end there are zeros.
    private func readBacking(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        var present = 0
        if let backing {
            let size = backing.byteCount
            present = offset >= size ? 0 : Int(min(UInt64(buffer.count), size - offset))
            if present > 0 {
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<present])
                do throws(ColdframeError) {
                    try backing.direct.read(into: part, at: offset)
                } catch {
                    // The backing image may be damaged; this one is not.
                    guard error.code == .corrupt else { throw error }
                    throw ColdframeError(.io, "Backing node '\(backing.name)': \(error.message)", errno: error.errno)
                }
            }
        }
        if present < buffer.count {
            UnsafeMutableRawBufferPointer(rebasing: buffer[present...]).initializeMemory(as: UInt8.self, repeating: 0)
        }
    }

    /// Whether nothing lies under `offset` in the backing chain, so that an unallocated cluster there reads as zeros.
    func hasBacking(at offset: UInt64) -> Bool {
        guard let backing else { return false }
        return offset < backing.byteCount
    }

    // MARK: Extents

    /// As `BlockDriver.extents`. Data has a host offset only if the child is a plain file.
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        var list = ExtentList(limit: limit)
        let source = file.extentSource
        let end = offset + byteCount
        var position = offset
        while position < end, !list.isFull {
            let run = try map.lookup(GuestOffset(position), byteCount: end - position)
            switch run.kind {
            case .zero:
                list.append(Extent(offset: position, byteCount: run.byteCount, kind: .zero(allocated: true)))
            case .compressed:
                list.append(Extent(offset: position, byteCount: run.byteCount, kind: .opaque))
            case .data(let host):
                appendData(position, run.byteCount, host, source, &list)
            case .unallocated:
                try appendBacking(position, run.byteCount, &list)
            }
            position += run.byteCount
        }
        return list.extents
    }

    private func appendData(
        _ offset: UInt64, _ byteCount: UInt64, _ host: HostOffset, _ source: (any ExtentSource)?,
        _ list: inout ExtentList
    ) {
        guard let source else {
            list.append(Extent(offset: offset, byteCount: byteCount, kind: .opaque))
            return
        }
        // A mapping of what lies behind the file's end would fault.
        let size = file.byteCount
        let present = host.rawValue >= size ? 0 : min(byteCount, size - host.rawValue)
        if present > 0 {
            list.append(
                Extent(offset: offset, byteCount: present, kind: .data(source: source, hostOffset: host.rawValue)))
        }
        if present < byteCount {
            list.append(Extent(offset: offset + present, byteCount: byteCount - present, kind: .zero(allocated: true)))
        }
    }

    private func appendBacking(_ offset: UInt64, _ byteCount: UInt64, _ list: inout ExtentList) throws(ColdframeError) {
        let end = offset + byteCount
        var position = offset
        if let backing {
            let backingEnd = min(end, backing.byteCount)
            while position < backingEnd, !list.isFull {
                let part = try backing.direct.extents(at: position, byteCount: backingEnd - position, limit: list.room)
                for extent in part { list.append(extent) }
                guard let last = part.last, last.end > position else {
                    throw ColdframeError(.io, "Backing node '\(backing.name)' describes nothing at \(position)")
                }
                position = last.end
            }
            guard position >= backingEnd else { return }
        }
        if position < end {
            list.append(Extent(offset: position, byteCount: end - position, kind: .zero(allocated: false)))
        }
    }
}
