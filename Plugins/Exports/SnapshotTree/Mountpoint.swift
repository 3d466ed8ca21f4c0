import ColdframeKit
import LinuxSystem

/// Checks of a place to mount at, and taking mounts down. All of it blocks: on `BlockingPool`.
enum Mountpoint {
    /// The canonical path of a directory at which a tree can be mounted. Changes nothing.
    static func check(_ path: String) throws(ColdframeError) -> String {
        let canonical: String
        let status: FileStatus
        do {
            canonical = try Files.canonicalPath(path)
            status = try Files.status(canonical)
        } catch {
            switch error.errno {
            case Errno.noEntry:
                throw ColdframeError(.notFound, "Mountpoint '\(path)' does not exist: make the directory first")
            case Errno.notConnected:
                throw ColdframeError(
                    .busy, "Mountpoint '\(path)' holds a mount whose server is gone: unmount it (umount -l '\(path)')")
            default:
                throw ColdframeError(error, "Cannot use mountpoint '\(path)'")
            }
        }
        guard status.isDirectory else {
            throw ColdframeError(.invalidArgument, "Mountpoint '\(path)' is not a directory", errno: Errno.notDirectory)
        }
        let mounts = MountTable.read()
        if let mount = mounts.last(where: { $0.mountpoint == canonical }) {
            throw ColdframeError(
                .busy,
                "Mountpoint '\(path)' is busy: '\(mount.source)' (\(mount.fileSystemType)) is mounted there; "
                    + "unmount it or choose another directory")
        }
        if let tree = mounts.first(where: { $0.isSnapshotTree && canonical.hasPrefix($0.mountpoint + "/") }) {
            throw ColdframeError(
                .invalidArgument,
                "Mountpoint '\(path)' lies inside the snapshot tree at '\(tree.mountpoint)': choose a "
                    + "directory outside it")
        }
        return canonical
    }

    /// Takes down trees at `path` whose agent has died; leaves living ones and everybody else's mounts alone. A path
    /// that does not exist is no error.
    static func cleanStale(_ path: String) throws(ColdframeError) {
        guard let place = place(of: path) else { return }
        // One below another is possible; each turn takes one away.
        for _ in 0..<64 {
            guard let mount = MountTable.read().last(where: { $0.mountpoint == place }), mount.isSnapshotTree,
                isDead(place)
            else { return }
            if !unmount(place) {
                throw ColdframeError(
                    .busy, "Cannot unmount the tree that an earlier agent left at '\(path)': run umount -l '\(path)'")
            }
        }
    }

    /// The canonical path without a look at the last component, which does not answer when its server is dead.
    private static func place(of path: String) -> String? {
        var trimmed = path
        while trimmed.utf8.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        guard let parent = try? Files.canonicalPath(Files.parentDirectory(of: trimmed)) else { return nil }
        let name = Files.lastComponent(of: trimmed)
        if name == "." || name == ".." || name.isEmpty { return try? Files.canonicalPath(trimmed) }
        // A link to the mountpoint itself can be followed only by reading it.
        let direct = parent == "/" ? "/" + name : parent + "/" + name
        if let status = try? Files.status(direct, followLinks: false), status.isSymbolicLink {
            return try? Files.canonicalPath(direct)
        }
        return direct
    }

    private static func isDead(_ path: String) -> Bool {
        do {
            _ = try Files.status(path)
            return false
        } catch {
            return error.errno == Errno.notConnected
        }
    }

    /// Unmounts, at once or, with files still open, for new users at once and cutting the open files off. False if the
    /// mount is still there.
    @discardableResult
    static func unmount(_ path: String) -> Bool {
        do {
            try Mounts.unmount(path)
            return true
        } catch  where error.errno == Errno.notPermitted {
            return unmountAsUser(path)
        } catch {
            // Busy: detach it, and end the connection so that whoever waits for a reply gets an error.
            return (try? Mounts.unmount(path, [.detach, .force])) != nil
                || (try? Mounts.unmount(path, [.detach])) != nil
        }
    }

    /// Ends a FUSE connection through `/sys/fs/fuse/connections`, which belongs to the user who mounted. It is there only
    /// where that file system is mounted: an attempt.
    static func abortConnection(device: String) {
        guard let minor = device.split(separator: ":").last,
            let file = try? Descriptor.open("/sys/fs/fuse/connections/\(minor)/abort", .writeOnly)
        else { return }
        try? file.writeAll([UInt8(ascii: "1")])
    }

    /// Without privilege only fusermount3 may do it, for the user who mounted.
    private static func unmountAsUser(_ path: String) -> Bool {
        runFusermount(["-u", "-q", "--", path]) || runFusermount(["-u", "-z", "-q", "--", path])
    }

    private static func runFusermount(_ arguments: [String]) -> Bool {
        guard let pid = try? ProcessControl.spawn(SpawnRequest(path: "fusermount3", arguments: arguments)),
            let status = try? ProcessControl.wait(pid)
        else { return false }
        return status == .exited(0)
    }
}
