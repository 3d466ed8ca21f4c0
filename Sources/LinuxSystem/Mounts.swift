import Glibc

/// Taking mounts down.
public enum Mounts {
    /// Flags of `umount2(2)`.
    public struct UnmountFlags: OptionSet, Sendable {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        /// MNT_FORCE: a FUSE connection ends at once, and requests under way with it.
        public static let force = UnmountFlags(rawValue: 1)
        /// MNT_DETACH: gone for new users now, for those who have files open when they close them.
        public static let detach = UnmountFlags(rawValue: 2)
    }

    /// `umount2(2)`. A symbolic link as the last component is not followed.
    public static func unmount(_ path: String, _ flags: UnmountFlags = []) throws(SystemError) {
        let noFollow: Int32 = 8
        try SystemCall.run("umount2", path: path) { umount2(path, flags.rawValue | noFollow) }
    }
}
