import LinuxSystem

/// Records every change of all files below a folder (images, journal, state), whoever makes it, so that a test can put the
/// folder into the state of a crash at any moment.
///
/// One at a time in a process. Directories are made before the recording, or stay when a state is built.
public final class CrashRecorder: Sendable {
    private let folder: String
    private let base: FileTree
    private let directories: [FileChanges.Key: String]
    private let recorded = Locked<[FileChanges.Change]>([])

    /// Begins to record. `folder` is an absolute path without links.
    public init(folder: String) throws {
        self.folder = folder
        base = try FileTree(reading: folder)
        directories = try Self.directories(folder)
        FileChanges.watch { [self] change in
            if concerns(change) { recorded.withLock { $0.append(change) } }
        }
    }

    private static func directories(_ folder: String) throws -> [FileChanges.Key: String] {
        let status = try Files.status(folder)
        var found = [FileChanges.Key(device: status.device, inode: status.inode): folder]
        for name in try Files.listDirectory(folder) where try Files.status("\(folder)/\(name)").isDirectory {
            found.merge(try directories("\(folder)/\(name)")) { $1 }
        }
        return found
    }

    private func concerns(_ change: FileChanges.Change) -> Bool {
        switch change {
        case .make(let path, _), .makeDirectory(let path), .remove(let path), .rename(_, let path):
            path.hasPrefix(folder + "/")
        // Those of other files are dropped when a state is built.
        case .write, .zero, .resize, .synchronize: true
        }
    }

    /// Changes so far: a moment of a crash.
    public var position: Int { recorded.withLock { $0.count } }

    /// Ends the recording.
    public func finish() -> CrashLog {
        FileChanges.watch(nil)
        return CrashLog(base: base, changes: recorded.withLock { $0 }, directories: directories)
    }
}

/// What was recorded.
public struct CrashLog: Sendable {
    let base: FileTree
    public let changes: [FileChanges.Change]
    let directories: [FileChanges.Key: String]

    /// After the first `count` changes, all of them in the files: the agent was killed there.
    public func kill(after count: Int) -> FileTree {
        var tree = base
        for change in changes.prefix(count) { tree.apply(change) }
        return tree
    }

    /// The host lost power there: what a file had not been flushed of since is there or not, a piece of a write perhaps;
    /// of names that were not flushed the first ones are there. Sizes are the filesystem's own, which keeps them in order.
    public func powerLoss(after count: Int, using generator: inout some RandomNumberGenerator) -> FileTree {
        var durable = base
        var unflushed: [FileChanges.Key: [FileChanges.Change]] = [:]
        var names: [(folder: String, change: FileChanges.Change)] = []
        for change in changes.prefix(count) {
            switch change {
            case .write(let key, _, _), .zero(let key, _, _, _), .resize(let key, _):
                unflushed[key, default: []].append(change)
            case .synchronize(let key):
                if let folder = directories[key] {
                    for name in names where name.folder == folder { durable.applyName(name.change) }
                    names.removeAll { $0.folder == folder }
                } else {
                    for change in unflushed.removeValue(forKey: key) ?? [] { durable.apply(change) }
                }
            case .make(let path, let key):
                // The inode is there, its name is not yet.
                durable.contents[key] = []
                unflushed[key] = nil
                names.append((Files.parentDirectory(of: path), change))
            case .rename(_, let path), .remove(let path), .makeDirectory(let path):
                names.append((Files.parentDirectory(of: path), change))
            }
        }
        for name in names.prefix(Int.random(in: 0...names.count, using: &generator)) { durable.applyName(name.change) }
        for key in unflushed.keys.sorted(by: { $0.inode < $1.inode }) {
            let luck = [0.1, 0.5, 0.9].randomElement(using: &generator) ?? 0.5
            for change in unflushed[key] ?? [] {
                durable.apply(change.survivor(luck, &generator))
            }
        }
        return durable
    }
}

extension FileTree {
    /// A name, without what it does to the contents of a file that has some by now.
    mutating func applyName(_ change: FileChanges.Change) {
        if case .make(let path, let key) = change { names[path] = key } else { apply(change) }
    }
}

extension FileChanges.Change {
    /// What is left of an unflushed change: all, nothing, or the first sectors of a write.
    fileprivate func survivor(_ luck: Double, _ generator: inout some RandomNumberGenerator) -> Self {
        let isKept = Double.random(in: 0..<1, using: &generator) < luck
        switch self {
        case .write(let key, let offset, let bytes):
            if isKept { return self }
            let sectors = Bool.random(using: &generator) ? Int.random(in: 0...bytes.count / 512, using: &generator) : 0
            // A piece ends at a sector of the file.
            let end = sectors == 0 ? 0 : max(0, sectors * 512 - Int(offset % 512))
            return .write(key, offset: offset, bytes: Array(bytes.prefix(min(end, bytes.count))))
        case .zero(let key, let offset, _, let size):
            return isKept ? self : .zero(key, offset: offset, byteCount: 0, fileByteCount: size)
        default: return self
        }
    }
}
