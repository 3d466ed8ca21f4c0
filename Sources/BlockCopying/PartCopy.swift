import ColdframeKit

/// An error of copying, and on which side it came.
public struct CopyFailure: Error {
    public let error: ColdframeError
    public let isRead: Bool

    public init(error: ColdframeError, isRead: Bool) {
        self.error = error
        self.isRead = isRead
    }
}

/// Copies parts of a disk from one node to another, as they are now; holes of the source become holes of the target. Any thread that has
/// passed a gate of both.
public struct PartCopy: Sendable {
    private static let extentLimit = 64

    let source: BlockNode
    let target: BlockNode
    private let zeroFlags: WriteFlags
    let buffers: CopyBuffers

    /// - Parameter limit: bytes of the largest part.
    public init(from source: BlockNode, to target: BlockNode, limit: UInt64, zeroFlags: WriteFlags = []) {
        self.source = source
        self.target = target
        self.zeroFlags = zeroFlags
        buffers = CopyBuffers(byteCount: Int(limit))
    }

    public func copy(_ part: Range<UInt64>) throws(CopyFailure) {
        var offset = part.lowerBound
        while offset < part.upperBound {
            let extents = try reading { () throws(ColdframeError) in
                try source.direct.extents(at: offset, byteCount: part.upperBound - offset, limit: Self.extentLimit)
            }
            guard let end = extents.last?.end, end > offset else { return try copyData(offset..<part.upperBound) }
            try copy(extents, before: part.upperBound)
            offset = end
        }
    }

    /// Neighbours that are alike go in one request.
    private func copy(_ extents: [Extent], before limit: UInt64) throws(CopyFailure) {
        var index = 0
        while index < extents.count {
            let (start, isZero) = (extents[index].offset, extents[index].readsAsZeros)
            while index < extents.count, extents[index].readsAsZeros == isZero { index += 1 }
            // No driver says more than it was asked; this one writes nothing that is not its part.
            let end = min(extents[index - 1].end, limit)
            if isZero {
                try writing { () throws(ColdframeError) in
                    try target.direct.writeZeroes(at: start, byteCount: end - start, flags: zeroFlags)
                }
            } else {
                try copyData(start..<end)
            }
        }
    }

    /// Copies without looking for holes.
    public func copyData(_ part: Range<UInt64>) throws(CopyFailure) {
        try buffers.with { (memory) throws(CopyFailure) in
            let buffer = UnsafeMutableRawBufferPointer(start: memory, count: Int(part.upperBound - part.lowerBound))
            try reading { () throws(ColdframeError) in try source.direct.read(into: buffer, at: part.lowerBound) }
            try writing { () throws(ColdframeError) in
                try target.direct.write(UnsafeRawBufferPointer(buffer), at: part.lowerBound)
            }
        }
    }

    func reading<T>(_ body: () throws(ColdframeError) -> T) throws(CopyFailure) -> T {
        do { return try body() } catch { throw CopyFailure(error: error, isRead: true) }
    }

    func writing<T>(_ body: () throws(ColdframeError) -> T) throws(CopyFailure) -> T {
        do { return try body() } catch { throw CopyFailure(error: error, isRead: false) }
    }
}

extension Extent {
    var readsAsZeros: Bool {
        if case .zero = kind { true } else { false }
    }
}
