import ColdframeKit
import QAPI

/// In this target the bare name means the image's snapshot, not the wire's.
typealias SnapshotInfo = ColdframeKit.SnapshotInfo

extension ColdframeKit.SnapshotInfo {
    /// As QAPI's `SnapshotInfo`.
    var wire: QAPI.SnapshotInfo {
        QAPI.SnapshotInfo(
            id: id, name: name, vmStateSize: Int64(clamping: vmStateByteCount), dateSec: Int64(dateSeconds),
            dateNsec: Int64(dateNanoseconds), vmClockSec: Int64(clamping: guestClockNanoseconds / 1_000_000_000),
            vmClockNsec: Int64(guestClockNanoseconds % 1_000_000_000), icount: icount.map { Int64(clamping: $0) })
    }
}
