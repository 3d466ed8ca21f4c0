import ColdframeKit
import LinuxSystem

// On btrfs, XFS and their kin two files can share blocks; elsewhere, and across filesystems, the caller copies.

extension FileDriver: RangeSharing {
    func share(
        _ source: any ExtentSource, at sourceOffset: UInt64, byteCount: UInt64, to offset: UInt64
    ) throws(ColdframeError) -> Bool {
        guard !mode.isReadOnly, !mode.isBlockDevice, byteCount > 0 else { return false }
        do {
            defer { changes.note() }
            try file.shareRange(at: offset, with: source.descriptor, at: sourceOffset, byteCount: byteCount)
            return true
        } catch {
            if Self.refusals.contains(error.errno) { return false }
            throw failed(error, "Could not share \(byteCount) bytes at \(offset) of")
        }
    }

    /// What says that it cannot be, not that it went wrong.
    private static let refusals: Set<Int32> = [
        Errno.notSupported, Errno.notTTY, Errno.crossDevice, Errno.invalid, Errno.badDescriptor, Errno.notPermitted,
    ]
}
