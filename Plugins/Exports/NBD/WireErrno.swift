/// The errors that the protocol knows. Their values are Linux's.
enum WireError: UInt32, Sendable {
    case notPermitted = 1
    case inputOutput = 5
    case noMemory = 12
    case invalid = 22
    case noSpace = 28
    case overflow = 75
    case notSupported = 95
    case shutdown = 108

    /// The protocol's error for an errno of a driver. What it has no word for is EIO: the disk failed, and the client
    /// did nothing wrong.
    init(errno: Int32) {
        switch errno {
        case 1, 13, 30: self = .notPermitted  // EPERM, EACCES, EROFS
        case 12: self = .noMemory
        case 22: self = .invalid
        case 27, 28, 122: self = .noSpace  // EFBIG, ENOSPC, EDQUOT
        case 75: self = .overflow
        case 38, 95: self = .notSupported  // ENOSYS, EOPNOTSUPP
        case 108: self = .shutdown
        default: self = .inputOutput
        }
    }
}
