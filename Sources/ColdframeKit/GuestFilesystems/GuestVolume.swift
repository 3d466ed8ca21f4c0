/// What a guest filesystem lies on: a disk or a part of one, read-only, with a bound that no reader gets past.
///
/// Any thread; a read may block. Whoever implements it has no need of a node: a process that may do nothing but parse
/// reads its volume through a socket.
public protocol GuestVolume: Sendable {
    /// Size in bytes.
    var byteCount: UInt64 { get }
    /// Fills `buffer`. What lies outside throws `.invalidArgument`.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError)
}

extension GuestVolume {
    /// Reads what the filesystem says is there. What lies outside the volume throws `.corrupt`, and `what` names it.
    public func readPart(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) {
        let size = byteCount
        guard offset <= size, UInt64(buffer.count) <= size - offset else {
            throw ColdframeError(
                .corrupt,
                "\(what()) (\(buffer.count) bytes at \(offset)) lies outside the volume of \(size) bytes, which is "
                    + "damaged or was cut short")
        }
        try read(into: buffer, at: offset)
    }

    /// The same as an array. The caller has bounded `byteCount` by a constant.
    public func part(
        byteCount: Int, at offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try bytes.withMutableBytes { (buffer) throws(ColdframeError) in
            try readPart(into: buffer, at: offset, what())
        }
        return bytes
    }
}

/// A range of a node as a volume: the whole disk, or a partition.
public struct NodeVolume: GuestVolume {
    private let node: BlockNode
    private let start: UInt64
    public let byteCount: UInt64

    /// Throws `.corrupt` if the range is not within the disk.
    public init(_ node: BlockNode, start: UInt64, byteCount: UInt64) throws(ColdframeError) {
        let size = node.byteCount
        guard start <= size, byteCount <= size - start else {
            throw ColdframeError(
                .corrupt,
                "A volume of \(byteCount) bytes at \(start) lies outside the disk of \(size) bytes, which was cut "
                    + "short, or whose partition table is damaged")
        }
        self.node = node
        self.start = start
        self.byteCount = byteCount
    }

    /// The whole disk.
    public init(_ node: BlockNode) {
        self.node = node
        start = 0
        byteCount = node.byteCount
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(buffer.count) <= byteCount - offset else {
            throw ColdframeError(
                .invalidArgument,
                "Request for \(buffer.count) bytes at \(offset) lies outside the volume of \(byteCount) bytes")
        }
        try node.read(into: buffer, at: start + offset)
    }
}
