import ColdframeKit
import LinuxSystem

/// QEMU's image locks, so that neither side writes into an image that the other one holds.
///
/// An image is locked by OFD locks on single bytes of the file, one byte per permission (block/file-posix.c of QEMU).
/// All locks are shared ones: that byte 101 is locked says "I write", that byte 201 is locked says "nobody else may
/// write". Who opens an image first locks its own bytes and then looks whether somebody else holds the opposite one;
/// of two that come at the same time at least one sees the other. The locks belong to the open file description and
/// end with it, also by kill -9.
struct ImageLocks: Sendable {
    /// Block permissions, with QEMU's numbers.
    struct Permissions: OptionSet, Sendable {
        let rawValue: UInt8
        static let consistentRead = Permissions(rawValue: 1)
        static let write = Permissions(rawValue: 2)
        static let writeUnchanged = Permissions(rawValue: 4)
        static let resize = Permissions(rawValue: 8)

        /// With QEMU's names, which its messages use.
        static let all: [(permission: Permissions, index: UInt64, name: String)] = [
            (.consistentRead, 0, "consistent read"), (.write, 1, "write"),
            (.writeUnchanged, 2, "write unchanged"), (.resize, 3, "resize"),
        ]
    }

    /// What this side does with the image.
    var held: Permissions
    /// What nobody else may do meanwhile.
    var refused: Permissions

    /// An image that is open for writing.
    static let writer = ImageLocks(held: [.consistentRead, .write, .resize], refused: [.write, .resize])
    /// An image that is open for reading: others may read too.
    static let reader = ImageLocks(held: .consistentRead, refused: [.write, .resize])
    /// An image that is read while others may write (`force-share`).
    static let sharingReader = ImageLocks(held: .consistentRead, refused: [])

    private static let heldBase: UInt64 = 100
    private static let refusedBase: UInt64 = 200

    /// Locks the image, or throws and leaves nothing locked.
    /// - Throws: `.busy` with QEMU's words first if somebody else holds it; `.io` where the filesystem has no locks.
    func take(on file: Descriptor, path: String) throws(ColdframeError) {
        do {
            try lockOwnBytes(file, path)
            try refuseConflicts(file, path)
        } catch {
            Self.release(file)
            throw error
        }
    }

    /// Holds these instead of others that are held on the same open file description. On a throw the others are held.
    func replace(_ previous: ImageLocks, on file: Descriptor, path: String) throws(ColdframeError) {
        do {
            try lockOwnBytes(file, path)
            try refuseConflicts(file, path)
        } catch {
            previous.giveUpOthers(on: file)
            throw error
        }
        giveUpOthers(on: file)
    }

    /// Unlocks the bytes that are not of these. What fails here ends with the descriptor's close.
    private func giveUpOthers(on file: Descriptor) {
        for (permission, index, _) in Permissions.all {
            if !held.contains(permission) {
                try? file.setOFDLock(.unlock, offset: Self.heldBase + index, byteCount: 1)
            }
            if !refused.contains(permission) {
                try? file.setOFDLock(.unlock, offset: Self.refusedBase + index, byteCount: 1)
            }
        }
    }

    /// Gives all of them up, before the file is closed: closing does it too, but a process that is being started at that
    /// moment has a copy of the descriptor until it runs its program.
    static func release(_ file: Descriptor) {
        // Nothing else is locked through this descriptor; what fails here ends with its close.
        try? file.setOFDLock(.unlock, offset: heldBase, byteCount: refusedBase)
    }

    private func lockOwnBytes(_ file: Descriptor, _ path: String) throws(ColdframeError) {
        for (permission, index, _) in Permissions.all {
            if held.contains(permission) { try Self.lock(file, Self.heldBase + index, path) }
            if refused.contains(permission) { try Self.lock(file, Self.refusedBase + index, path) }
        }
    }

    private static func lock(_ file: Descriptor, _ byte: UInt64, _ path: String) throws(ColdframeError) {
        do {
            try file.setOFDLock(.read, offset: byte, byteCount: 1)
        } catch {
            // Nobody of this scheme locks exclusively: what is in the way is a stranger, or a filesystem without locks.
            throw ColdframeError(
                .io,
                "Failed to lock byte \(byte) of '\(path)': \(error.reason); if the filesystem has no locks, open the "
                    + "image with locking=off",
                errno: error.errno)
        }
    }

    private func refuseConflicts(_ file: Descriptor, _ path: String) throws(ColdframeError) {
        for (permission, index, name) in Permissions.all where held.contains(permission) {
            if try !Self.isFree(file, Self.refusedBase + index, path) {
                throw Self.busy("Failed to get \"\(name)\" lock", path, isForWriting: self.held.contains(.write))
            }
        }
        for (permission, index, name) in Permissions.all where refused.contains(permission) {
            if try !Self.isFree(file, Self.heldBase + index, path) {
                throw Self.busy("Failed to get shared \"\(name)\" lock", path, isForWriting: self.held.contains(.write))
            }
        }
    }

    private static func isFree(_ file: Descriptor, _ byte: UInt64, _ path: String) throws(ColdframeError) -> Bool {
        do {
            return try file.testOFDLock(.write, offset: byte, byteCount: 1)
        } catch {
            throw ColdframeError(error, "Could not look for locks on '\(path)'")
        }
    }

    private static func busy(_ words: String, _ path: String, isForWriting: Bool) -> ColdframeError {
        let advice =
            isForWriting
            ? "end what uses it, or open it with read-only=on and force-share=on to look at it"
            : "end what writes to it, or open it with force-share=on"
        return ColdframeError(.busy, "\(words) on '\(path)': another process or node has the image open; \(advice)")
    }
}
