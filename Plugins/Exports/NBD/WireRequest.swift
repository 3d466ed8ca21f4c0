/// Header of a request in the transmission phase.
struct WireRequest: Sendable {
    static let byteCount = 28

    var flags: WireCommandFlags
    /// The command by number; unknown ones are answered, not fatal.
    var type: UInt16
    /// The client's own name for the request, sent back as it came.
    var cookie: UInt64
    var offset: UInt64
    var length: UInt32

    /// nil if the magic number is wrong: the stream is out of step and cannot be used any more.
    @inline(__always)
    init?(_ bytes: UnsafeRawPointer) {
        guard bytes.loadBig(UInt32.self, at: 0) == WireMagic.request else { return nil }
        flags = WireCommandFlags(rawValue: bytes.loadBig(UInt16.self, at: 4))
        type = bytes.loadBig(UInt16.self, at: 6)
        cookie = bytes.loadBig(UInt64.self, at: 8)
        offset = bytes.loadBig(UInt64.self, at: 16)
        length = bytes.loadBig(UInt32.self, at: 24)
    }

    var command: WireCommand? { WireCommand(rawValue: type) }

    /// The flags that the command may carry.
    static func allowedFlags(_ command: WireCommand, isStructured: Bool) -> WireCommandFlags {
        switch command {
        case .read: isStructured ? [.forceUnitAccess, .dontFragment] : .forceUnitAccess
        case .write, .trim, .flush, .cache, .disconnect: .forceUnitAccess
        case .writeZeroes: [.forceUnitAccess, .noHole, .fastZero]
        case .blockStatus: [.forceUnitAccess, .onlyOne]
        }
    }
}
