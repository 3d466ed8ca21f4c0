import ColdframeKit

/// Goes through a guest's filesystem and looks at each answer with mistrust.
///
/// What it finds wrong with an answer it throws as `Broken`; errors of the filesystem itself pass as they are, or are
/// swallowed by a walk that `goesOn`.
public struct FilesystemWalk {
    /// The filesystem broke a promise of `GuestFilesystem`.
    public struct Broken: Error, CustomStringConvertible {
        public let description: String
    }

    /// Regular files by path with their contents, as far as they were read; directories with nothing.
    public private(set) var found: [String: [UInt8]] = [:]
    public private(set) var errorCount = 0
    private let filesystem: any GuestFilesystem
    private let goesOn: Bool
    /// A damaged volume may have directories in a circle, and sizes of anything.
    private var entriesLeft = 3_000
    private var bytesLeft = 32 << 20
    private static let depthLimit = 12

    /// - Parameter goesOn: errors of the filesystem are counted, and the walk goes on behind them.
    public init(_ filesystem: any GuestFilesystem, goesOn: Bool = false) throws {
        self.filesystem = filesystem
        self.goesOn = goesOn
        try visit(filesystem.root, "", depth: 0)
    }

    private mutating func tolerating(_ body: (inout FilesystemWalk) throws -> Void) throws {
        do { try body(&self) } catch let error as ColdframeError {
            guard !error.message.isEmpty else { throw Broken(description: "An error without a word") }
            guard goesOn else { throw error }
            errorCount += 1
        }
    }

    private mutating func visit(_ directory: GuestFileID, _ path: String, depth: Int) throws {
        try tolerating { walk in
            var position: UInt64? = 0
            var names: Set<String> = []
            while let start = position {
                let limit = start == 0 ? 1 : 7
                let page = try walk.filesystem.list(directory, from: start, limit: limit)
                try Self.check(page, start, limit, path)
                for entry in page.entries {
                    walk.entriesLeft -= 1
                    guard walk.entriesLeft > 0 else { return }
                    try walk.look(at: entry, in: directory, path, isFirst: names.insert(entry.name).inserted, depth)
                }
                position = page.next
            }
        }
    }

    private static func check(_ page: GuestDirectoryPage, _ start: UInt64, _ limit: Int, _ path: String) throws {
        guard page.entries.count <= limit else {
            throw Broken(description: "'\(path)': \(page.entries.count) entries where \(limit) were asked for")
        }
        if let next = page.next, next == start {
            throw Broken(description: "'\(path)': the page at \(start) is its own next one")
        }
        for entry in page.entries where GuestDirectoryEntry.presentable(entry.name) != entry.name {
            throw Broken(description: "'\(path)' has an entry of the name '\(entry.name)'")
        }
    }

    private mutating func look(
        at entry: GuestDirectoryEntry, in directory: GuestFileID, _ parent: String, isFirst: Bool, _ depth: Int
    ) throws {
        let path = "\(parent)/\(entry.name)"
        try tolerating { walk in
            let attributes = try walk.filesystem.attributes(of: entry.file)
            guard attributes.kind == entry.kind else {
                throw Broken(
                    description: "'\(path)' is \(entry.kind) in its directory and \(attributes.kind) by itself")
            }
            // Of names that are there twice the first is found; names that differ in case may be one.
            if isFirst, try walk.filesystem.lookUp(entry.name, in: directory) != entry.file, walk.errorCount == 0 {
                throw Broken(description: "'\(path)' is listed, and found as another file by its name")
            }
            switch attributes.kind {
            case .regular: try walk.readAll(entry.file, attributes.byteCount, path)
            case .directory:
                walk.found[path] = []
                try walk.requireNoFile(entry.file, path)
                if depth < Self.depthLimit { try walk.visit(entry.file, path, depth: depth + 1) }
            case .link: _ = try walk.filesystem.linkTarget(of: entry.file)
            case .special: break
            }
        }
    }

    /// A directory is not read as a file, and says so; a volume that cannot be read is another matter.
    private func requireNoFile(_ directory: GuestFileID, _ path: String) throws {
        do { _ = try read(directory, 1, at: 0) } catch let error as ColdframeError {
            if error.code == .io { throw error }
            return
        }
        throw Broken(description: "Directory '\(path)' is read as a file")
    }

    /// In pieces of no size in particular, and once more from the middle.
    private mutating func readAll(_ file: GuestFileID, _ byteCount: UInt64, _ path: String) throws {
        let wanted = Int(min(byteCount, UInt64(max(bytesLeft, 0))))
        bytesLeft -= wanted
        var content: [UInt8] = []
        while content.count < wanted {
            let piece = try read(file, min(30_011, wanted - content.count), at: UInt64(content.count))
            guard !piece.isEmpty else {
                throw Broken(description: "'\(path)' ends at \(content.count) of \(byteCount) bytes without an error")
            }
            content += piece
        }
        found[path] = content
        guard try read(file, 10, at: byteCount).isEmpty, try read(file, 10, at: .max).isEmpty else {
            throw Broken(description: "'\(path)' has bytes behind its end")
        }
        guard wanted > 1 else { return }
        let middle = try read(file, min(1_000, wanted - wanted / 2), at: UInt64(wanted / 2))
        guard middle == Array(content[(wanted / 2)...].prefix(1_000)) else {
            throw Broken(description: "'\(path)' has other bytes in its middle when it is read from there")
        }
    }

    private func read(_ file: GuestFileID, _ byteCount: Int, at offset: UInt64) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        let count = try bytes.withMutableBytes { (buffer) throws(ColdframeError) in
            try filesystem.read(file, into: buffer, at: offset)
        }
        guard (0...byteCount).contains(count) else {
            throw Broken(description: "A read of \(byteCount) bytes says that it was \(count)")
        }
        return Array(bytes[..<count])
    }
}
