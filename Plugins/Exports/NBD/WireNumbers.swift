/// Numbers of the NBD protocol (the protocol text of the NetworkBlockDevice project, sections "Values" and "Magic
/// numbers"). All integers on the wire are big-endian.
enum WireMagic {
    /// "NBDMAGIC", the first eight bytes of a server.
    static let greeting: UInt64 = 0x4e42_444d_4147_4943
    /// "IHAVEOPT", before each option and in the greeting.
    static let option: UInt64 = 0x4948_4156_454f_5054
    static let optionReply: UInt64 = 0x0003_e889_0455_65a9
    static let request: UInt32 = 0x2560_9513
    static let simpleReply: UInt32 = 0x6744_6698
    static let structuredReply: UInt32 = 0x668e_33ef
}

/// Flags of the handshake, the server's and the client's having the same bits.
struct WireHandshakeFlags: OptionSet, Sendable {
    let rawValue: UInt32
    static let fixedNewstyle = WireHandshakeFlags(rawValue: 1 << 0)
    static let noZeroes = WireHandshakeFlags(rawValue: 1 << 1)
}

/// What an export can do.
struct WireTransmissionFlags: OptionSet, Sendable {
    let rawValue: UInt16
    static let hasFlags = WireTransmissionFlags(rawValue: 1 << 0)
    static let readOnly = WireTransmissionFlags(rawValue: 1 << 1)
    static let sendFlush = WireTransmissionFlags(rawValue: 1 << 2)
    static let sendFUA = WireTransmissionFlags(rawValue: 1 << 3)
    static let sendTrim = WireTransmissionFlags(rawValue: 1 << 5)
    static let sendWriteZeroes = WireTransmissionFlags(rawValue: 1 << 6)
    static let sendDontFragment = WireTransmissionFlags(rawValue: 1 << 7)
    static let canMultiConnect = WireTransmissionFlags(rawValue: 1 << 8)
    static let sendCache = WireTransmissionFlags(rawValue: 1 << 10)
    static let sendFastZero = WireTransmissionFlags(rawValue: 1 << 11)
}

/// Options of the handshake.
enum WireOption: UInt32, Sendable {
    case exportName = 1
    case abort = 2
    case list = 3
    case startTLS = 5
    case info = 6
    case go = 7
    case structuredReply = 8
    case listMetaContext = 9
    case setMetaContext = 10
}

/// Types of replies to options; those with the top bit set are errors, followed by a text for people.
enum WireOptionReply: UInt32, Sendable {
    case acknowledge = 1
    case server = 2
    case info = 3
    case metaContext = 4
    case unsupported = 0x8000_0001
    case policy = 0x8000_0002
    case invalid = 0x8000_0003
    case unknownExport = 0x8000_0006
    case shuttingDown = 0x8000_0007
    case tooBig = 0x8000_0009
}

/// Items of information about an export (`NBD_INFO_*`).
enum WireInfo: UInt16, Sendable {
    case export = 0
    case name = 1
    case description = 2
    case blockSize = 3
}

/// Requests of the transmission phase.
enum WireCommand: UInt16, Sendable {
    case read = 0
    case write = 1
    case disconnect = 2
    case flush = 3
    case trim = 4
    case cache = 5
    case writeZeroes = 6
    case blockStatus = 7
}

/// Flags of a request.
struct WireCommandFlags: OptionSet, Sendable {
    let rawValue: UInt16
    static let forceUnitAccess = WireCommandFlags(rawValue: 1 << 0)
    static let noHole = WireCommandFlags(rawValue: 1 << 1)
    static let dontFragment = WireCommandFlags(rawValue: 1 << 2)
    static let onlyOne = WireCommandFlags(rawValue: 1 << 3)
    static let fastZero = WireCommandFlags(rawValue: 1 << 4)
}

/// Types of the chunks of a structured reply.
enum WireChunk: UInt16, Sendable {
    case none = 0
    case offsetData = 1
    case offsetHole = 2
    case blockStatus = 5
    case error = 0x8001
}

/// Descriptor flags of the context `base:allocation`.
struct WireAllocation: OptionSet, Sendable {
    let rawValue: UInt32
    static let hole = WireAllocation(rawValue: 1 << 0)
    static let zero = WireAllocation(rawValue: 1 << 1)
}

/// Descriptor flags of the contexts `qemu:dirty-bitmap:NAME`.
enum WireDirty {
    static let dirty: UInt32 = 1
}

/// Sizes that the protocol fixes or recommends, in bytes.
enum WireLimit {
    /// Longest name, description or meta context query.
    static let stringByteCount = 4096
    /// Longest payload of a read or write that is carried out.
    static let payloadByteCount = 32 << 20
    /// Longest data of an option that is looked at.
    static let optionByteCount = 64 << 10
}
