/// A piece of a disk and where its content comes from.
public struct Extent: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        /// Reads as zeros; `allocated` tells whether it takes space or hides a backing file (a zero cluster).
        case zero(allocated: Bool)
        /// Lies as it is in the file of `source` at byte `hostOffset`.
        case data(source: ExtentSource, hostOffset: UInt64)
        /// Has content that must be read through the driver (compressed, or no single host offset).
        case opaque
    }
    /// First byte, in the disk.
    public var offset: UInt64
    public var byteCount: UInt64
    public var kind: Kind

    public init(offset: UInt64, byteCount: UInt64, kind: Kind) {
        self.offset = offset
        self.byteCount = byteCount
        self.kind = kind
    }

    /// First byte behind the extent.
    public var end: UInt64 { offset + byteCount }
}

/// A file that can be read and mapped directly at an extent's host offset, for exports that serve without a copy.
public protocol ExtentSource: AnyObject, Sendable {
    /// An open descriptor on the file. It belongs to the driver and lives as long as it.
    var descriptor: Int32 { get }
}

extension Extent.Kind {
    public static func == (a: Self, b: Self) -> Bool {
        switch (a, b) {
        case (.zero(let x), .zero(let y)): x == y
        case (.data(let s, let x), .data(let t, let y)): s === t && x == y
        case (.opaque, .opaque): true
        default: false
        }
    }
}
