import CLinux
import Glibc

/// A lock of a byte range.
public enum OFDLockKind: Sendable {
    /// Shared; others may hold it too.
    case read
    /// Exclusive; the descriptor must be open for writing.
    case write
    case unlock

    var type: Int32 {
        switch self {
        case .read: Int32(F_RDLCK)
        case .write: Int32(F_WRLCK)
        case .unlock: Int32(F_UNLCK)
        }
    }
}

extension Descriptor {
    /// `fcntl(2)` F_OFD_SETLK: takes, changes or gives up a lock that belongs to the open file description, and ends
    /// with its last descriptor. Does not wait: EAGAIN or EACCES if somebody holds it.
    public func setOFDLock(_ kind: OFDLockKind, offset: UInt64, byteCount: UInt64) throws(SystemError) {
        let start = try SystemCall.offset(offset, "fcntl(F_OFD_SETLK)")
        let length = try SystemCall.offset(byteCount, "fcntl(F_OFD_SETLK)")
        _ = try SystemCall.run("fcntl(F_OFD_SETLK)") { cf_ofd_lock(raw, kind.type, start, length) }
    }

    /// `fcntl(2)` F_OFD_GETLK: whether a lock of `kind` could be taken now. Own locks do not count.
    public func testOFDLock(_ kind: OFDLockKind, offset: UInt64, byteCount: UInt64) throws(SystemError) -> Bool {
        let start = try SystemCall.offset(offset, "fcntl(F_OFD_GETLK)")
        let length = try SystemCall.offset(byteCount, "fcntl(F_OFD_GETLK)")
        var isFree = false
        _ = try SystemCall.run("fcntl(F_OFD_GETLK)") { cf_ofd_test(raw, kind.type, start, length, &isFree) }
        return isFree
    }
}
