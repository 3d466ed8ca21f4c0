import CFuse3
import ColdframeKit
import LinuxSystem

/// Answers reads of one snapshot's disk, on the thread that received them.
///
/// What lies in a host file as it is, is sent from a mapping of that file without a copy in this process; zeros come
/// from one page area; the rest is read by the driver into the worker's buffer.
final class DiskReader: Sendable {
    let byteCount: UInt64
    private let node: BlockNode
    private let map: ExtentMap

    init(_ disk: any BlockDriver, nodeName: String) {
        // The node serialises the calls if the driver asks for it.
        node = BlockNode(name: nodeName, driver: disk)
        map = ExtentMap(node: node)
        byteCount = disk.byteCount
    }

    /// Replies to `request` with `count` bytes from `offset` on. On a throw the request is not yet answered.
    func reply(to request: fuse_req_t?, offset: UInt64, count: Int, scratch: Scratch) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
            throw ColdframeError(.corrupt, "The disk has \(byteCount) bytes, fewer than its snapshot says")
        }
        guard let vectorCount = try gather(offset: offset, count: count, scratch: scratch) else {
            // Too many small pieces for one reply.
            let buffer = UnsafeMutableRawBufferPointer(rebasing: scratch.buffer[..<count])
            try node.read(into: buffer, at: offset)
            fuse_reply_buf(request, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), count)
            return
        }
        let result = fuse_reply_iov(request, scratch.vectors, Int32(vectorCount))
        if result == -Errno.badAddress {
            // The kernel has ended the request with EIO.
            FUSELog.error("\(node.name): the image file was cut short while its snapshot was read at \(offset)")
        }
    }

    /// Fills the scratch's vectors with the range and returns their number, or nil if it has too many pieces.
    private func gather(offset: UInt64, count: Int, scratch: Scratch) throws(ColdframeError) -> Int? {
        let end = offset + UInt64(count)
        var position = offset
        var used = 0
        while position < end {
            let run = try map.run(at: position)
            var index = run.index(of: position)
            while position < end, index < run.pieces.count {
                let piece = run.pieces[index]
                let length = Int(min(piece.end, end) - position)
                switch piece.kind {
                case .zero:
                    var rest = length
                    while rest > 0 {
                        guard used < Scratch.vectorCapacity else { return nil }
                        let part = min(rest, ZeroArea.byteCount)
                        scratch.set(used, ZeroArea.pointer, part)
                        used += 1
                        rest -= part
                    }
                case .mapped:
                    guard used < Scratch.vectorCapacity else { return nil }
                    let skipped = position - piece.offset
                    piece.file?._withUnsafeGuaranteedRef {
                        $0.adviseWillNeed(hostOffset: piece.hostOffset + skipped, byteCount: UInt64(length))
                    }
                    scratch.set(used, piece.address + Int(skipped), length)
                    used += 1
                case .copied:
                    guard used < Scratch.vectorCapacity else { return nil }
                    let start = Int(position - offset)
                    let buffer = UnsafeMutableRawBufferPointer(rebasing: scratch.buffer[start..<start + length])
                    try node.read(into: buffer, at: position)
                    if let base = buffer.baseAddress {
                        scratch.set(used, UnsafeRawPointer(base), length)
                        used += 1
                    }
                }
                position += UInt64(length)
                index += 1
            }
        }
        return used
    }

    /// The first byte at or behind `offset` that is data (`SEEK_DATA`) or lies in a hole (`SEEK_HOLE`; the end is one).
    /// nil if there is none.
    func seek(from offset: UInt64, toData: Bool) throws(ColdframeError) -> UInt64? {
        var position = offset
        while position < byteCount {
            // A window bounds what one answer of the driver costs in memory.
            let length = min(byteCount - position, 1 << 30)
            let extents = try node.extents(at: position, byteCount: length, limit: 1024)
            let before = position
            for extent in extents {
                guard extent.offset == position, extent.byteCount > 0, extent.byteCount <= byteCount - position else {
                    throw ColdframeError(.corrupt, "Driver '\(node.driver.driverName)' described its extents wrongly")
                }
                var isData = true
                if case .zero = extent.kind { isData = false }
                if isData == toData { return position }
                position = extent.end
            }
            guard position > before else {
                throw ColdframeError(.corrupt, "Driver '\(node.driver.driverName)' described no extent at \(before)")
            }
        }
        return toData ? nil : byteCount
    }

    /// Gives up mappings; before the lease ends.
    func close() { map.drop() }
}

extension Scratch {
    fileprivate func set(_ index: Int, _ pointer: UnsafeRawPointer, _ byteCount: Int) {
        // The kernel only reads from it.
        vectors[index] = iovec(iov_base: UnsafeMutableRawPointer(mutating: pointer), iov_len: byteCount)
    }
}
