import ColdframeKit
import LinuxSystem

/// An image format under test: which files an image has, and how it is made and opened.
public struct DiskSubject: Sendable {
    public var name: String
    /// Names of the files that an image consists of.
    public var files: [String]
    /// Makes an image of so many bytes in empty files.
    public var create: @Sendable (_ nodes: [String: BlockNode], _ byteCount: UInt64) throws -> Void
    public var open: @Sendable (_ nodes: [String: BlockNode], _ isReadOnly: Bool) throws -> any BlockDriver

    public init(
        name: String, files: [String],
        create: @escaping @Sendable (_ nodes: [String: BlockNode], _ byteCount: UInt64) throws -> Void,
        open: @escaping @Sendable (_ nodes: [String: BlockNode], _ isReadOnly: Bool) throws -> any BlockDriver
    ) {
        self.name = name
        self.files = files
        self.create = create
        self.open = open
    }
}

/// One image of a subject: in memory, or in a folder that is gone when the test ends.
public final class SubjectImage: Sendable {
    public enum Storage: Sendable { case memory, folder }

    public let subject: DiskSubject
    /// nil in memory.
    public let directory: String?
    private let memory: [String: MemoryFile]

    /// An image of so many bytes, closed.
    public convenience init(_ subject: DiskSubject, byteCount: UInt64, storage: Storage = .folder) throws {
        try self.init(subject, storage: storage)
        let nodes = try nodes()
        try subject.create(nodes, byteCount)
        for node in nodes.values { try node.driver.close() }
    }

    /// Files with the given contents, in memory.
    public convenience init(_ subject: DiskSubject, contents: [String: [UInt8]]) throws {
        try self.init(subject, storage: .memory)
        for (file, bytes) in contents { try write(bytes, to: file) }
    }

    private init(_ subject: DiskSubject, storage: Storage) throws {
        self.subject = subject
        directory = storage == .folder ? try Files.temporaryDirectory(prefix: "conformance") : nil
        memory =
            storage == .memory
            ? Dictionary(uniqueKeysWithValues: subject.files.map { ($0, MemoryFile()) }) : [:]
    }

    deinit {
        if let directory { try? Files.removeTree(directory) }
    }

    public func path(_ file: String) -> String { "\(directory ?? "memory:")/\(file)" }

    /// Fresh nodes on the files; `wrap` may put a driver in between.
    public func nodes(
        isReadOnly: Bool = false,
        wrap: (_ file: String, any BlockDriver & Resizable) -> any BlockDriver & Resizable = { $1 }
    ) throws -> [String: BlockNode] {
        var nodes: [String: BlockNode] = [:]
        for file in subject.files {
            let bottom: any BlockDriver & Resizable
            if let memory = memory[file] {
                bottom = memory
            } else {
                bottom = try PlainFile(path: path(file), isReadOnly: isReadOnly, creates: !isReadOnly)
            }
            nodes[file] = BlockNode(name: file, driver: wrap(file, bottom))
        }
        return nodes
    }

    public func open(isReadOnly: Bool = false) throws -> any BlockDriver {
        try subject.open(try nodes(isReadOnly: isReadOnly), isReadOnly)
    }

    public func contents() throws -> [String: [UInt8]] {
        var contents: [String: [UInt8]] = [:]
        for file in subject.files {
            contents[file] = try memory[file]?.bytes ?? Files.readAll(path(file), limit: 1 << 30)
        }
        return contents
    }

    /// Replaces a file's content.
    public func write(_ bytes: [UInt8], to file: String) throws {
        if let memory = memory[file] { return memory.replace(with: bytes) }
        let descriptor = try Descriptor.open(path(file), [.writeOnly, .create, .truncate])
        try descriptor.writeAll(bytes)
        descriptor.close()
    }
}

extension BlockDriver {
    public func readBytes(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
        return bytes
    }

    public func writeBytes(_ bytes: [UInt8], at offset: UInt64) throws {
        try bytes.withUnsafeBytes { try write($0, at: offset, flags: []) }
    }
}
