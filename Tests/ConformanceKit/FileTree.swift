import Glibc
import LinuxSystem

/// The files of a folder as a crash may have left them: contents by what the file is, names by path.
public struct FileTree: Sendable {
    public internal(set) var names: [String: FileChanges.Key] = [:]
    public internal(set) var contents: [FileChanges.Key: [UInt8]] = [:]

    /// What is in the folder now, with those below it.
    public init(reading folder: String) throws {
        for name in try Files.listDirectory(folder) {
            let path = "\(folder)/\(name)"
            let status = try Files.status(path, followLinks: false)
            if status.isDirectory {
                let below = try FileTree(reading: path)
                names.merge(below.names) { $1 }
                contents.merge(below.contents) { $1 }
            } else if status.isRegularFile {
                let key = FileChanges.Key(device: status.device, inode: status.inode)
                names[path] = key
                contents[key] = try Files.readAll(path, limit: 1 << 30)
            }
        }
    }

    /// Puts the folder into this state. A file that is there already under its name keeps its inode, so that whoever knows
    /// it by that finds it again. Nobody has the files open.
    public func write(to folder: String) throws {
        let present = try FileTree(reading: folder)
        for path in present.names.keys where names[path] == nil { try Files.unlink(path) }
        for (path, key) in names {
            let bytes = contents[key] ?? []
            if present.names[path] == key, present.contents[key].map({ $0.isSame(as: bytes) }) == true { continue }
            if let other = present.names[path], other != key { try Files.unlink(path) }
            let file = try Descriptor.open(path, [.writeOnly, .create])
            try file.truncate(toByteCount: 0)
            try file.writeAll(bytes)
        }
    }

    mutating func apply(_ change: FileChanges.Change) {
        switch change {
        case .write(let key, let offset, let bytes):
            guard contents[key] != nil else { return }
            reach(key, Int(offset) + bytes.count)
            contents[key]?.overwrite(at: Int(offset), bytes)
        case .zero(let key, let offset, let byteCount, let fileByteCount):
            reach(key, Int(fileByteCount))
            let end = min(contents[key]?.count ?? 0, Int(offset + byteCount))
            guard Int(offset) < end else { return }
            contents[key]?.clear(Int(offset)..<end)
        case .resize(let key, let byteCount):
            contents[key]?.resize(to: Int(byteCount))
        case .make(let path, let key):
            names[path] = key
            // An inode's number is used again.
            contents[key] = []
        case .rename(let from, let to): names[to] = names.removeValue(forKey: from)
        case .remove(let path): names[path] = nil
        case .makeDirectory, .synchronize: break
        }
    }

    private mutating func reach(_ key: FileChanges.Key, _ end: Int) {
        guard let count = contents[key]?.count, count < end else { return }
        contents[key]?.resize(to: end)
    }
}

/// By whole pieces: element by element, a debug build would take seconds for an image.
extension [UInt8] {
    fileprivate mutating func overwrite(at offset: Int, _ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        withUnsafeMutableBytes { target in
            bytes.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: $0)
            }
        }
    }

    fileprivate mutating func clear(_ range: Range<Int>) {
        withUnsafeMutableBytes { _ = memset($0.baseAddress! + range.lowerBound, 0, range.count) }
    }

    /// Grows with zeros.
    fileprivate mutating func resize(to count: Int) {
        let old = self
        self = [UInt8](unsafeUninitializedCapacity: count) { buffer, initializedCount in
            guard count > 0, let target = buffer.baseAddress else { return }
            let kept = Swift.min(old.count, count)
            old.withUnsafeBufferPointer { if kept > 0 { _ = memcpy(target, $0.baseAddress!, kept) } }
            memset(target + kept, 0, count - kept)
            initializedCount = count
        }
    }

    fileprivate func isSame(as other: [UInt8]) -> Bool {
        count == other.count
            && withUnsafeBytes { a in
                other.withUnsafeBytes { b in count == 0 || memcmp(a.baseAddress!, b.baseAddress!, count) == 0 }
            }
    }
}
