import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Images to amend, and what is known of them.
struct AmendFixture {
    let fixture: ImageFixture
    let path: String
    var backing: BlockNode?
    /// The disk, and its snapshots by name.
    let disk: [UInt8]
    let snapshots: [String: [UInt8]]

    static let diskByteCount = 40 * 4096

    /// Data, zeros of both kinds, and if wanted snapshots and a backing file with a name of that length.
    init(
        version: UInt32 = 3, hasSnapshots: Bool = true, zerosInSnapshots: Bool = false, nameByteCount: Int = 0,
        change: (inout Qcow2Create.Options) -> Void = { _ in }
    ) throws {
        fixture = try ImageFixture()
        path = fixture.path("a")
        var options = Qcow2Create.Options(diskByteCount: UInt64(Self.diskByteCount))
        options.clusterByteCount = 4096
        options.version = version
        if nameByteCount > 0 {
            let base = fixture.path("base")
            let file = try Descriptor.open(base, [.writeOnly, .create, .truncate])
            try file.writeAll(pattern(Self.diskByteCount, 5))
            file.close()
            options.backingFilename = Self.name(of: base, byteCount: nameByteCount)
            options.backingFormat = "raw"
            backing = try fileNode(base, isReadOnly: true)
        }
        change(&options)
        let node = try fileNode(path, creates: true)
        try Qcow2Create.write(options, into: node)
        let driver = try openImage(node, backing: backing)
        func zero(_ range: Range<UInt64>, _ flags: WriteFlags) throws {
            try driver.writeZeroes(at: range.lowerBound, byteCount: UInt64(range.count), flags: flags)
        }
        try driver.writeBytes(pattern(60_000, 1), at: 3000)
        if zerosInSnapshots { try zero(4096..<12_288, .mayUnmap) }
        var kept: [String: [UInt8]] = [:]
        if hasSnapshots {
            _ = try driver.createSnapshot(request("one"))
            kept["one"] = try driver.readBytes(0, Self.diskByteCount)
            try driver.writeBytes(pattern(9000, 2), at: 20_000)
            _ = try driver.createSnapshot(request("two"))
            kept["two"] = try driver.readBytes(0, Self.diskByteCount)
        }
        try driver.writeBytes(pattern(5000, 3), at: 90_000)
        try zero(8192..<20_480, .mayUnmap)
        try zero(90_112..<94_208, [])
        try zero(120_000..<130_000, .mayUnmap)
        disk = try driver.readBytes(0, Self.diskByteCount)
        snapshots = kept
        try driver.close()
        try node.driver.close()
    }

    /// A longer name of the same file.
    static func name(of path: String, byteCount: Int) -> String {
        guard let slash = path.lastIndex(of: "/"), byteCount > path.utf8.count else { return path }
        let extra = byteCount - path.utf8.count
        return path[..<slash] + String(repeating: "/.", count: extra / 2) + String(repeating: "/", count: extra % 2)
            + path[slash...]
    }

    func amend(
        _ request: AmendRequest, on node: BlockNode? = nil, progress: @escaping AmendProgress = { _, _ in }
    ) throws {
        let file = try node ?? fileNode(path)
        defer { try? file.driver.close() }
        try Qcow2Amend(AmendedImage(file: file, backing: backing, dataFile: nil), request, progress: progress).run()
    }

    /// Clean for `qemu-img`, with the content that it had, by it and by us.
    func expectUnchangedContent(
        _ path: String? = nil, _ note: String = "", isQuick: Bool = false,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let path = path ?? self.path
        let driver = try openImage(path, backing: backing, isReadOnly: true)
        #expect(
            try driver.readBytes(0, Self.diskByteCount) == disk, "\(note)", sourceLocation: sourceLocation)
        for (name, content) in snapshots {
            let id = try #require(driver.snapshots.first { $0.name == name }?.id, "\(note)")
            let shown = try driver.openSnapshot(id: id).readBytes(0, content.count)
            #expect(shown == content, "\(name) \(note)", sourceLocation: sourceLocation)
        }
        guard !isQuick else { return }
        try fixture.expectNoErrors(path, note, sourceLocation: sourceLocation)
        #expect(try fixture.content(path) == disk, "\(note)", sourceLocation: sourceLocation)
        for (name, content) in snapshots {
            #expect(
                try fixture.content(path, snapshot: name) == content, "\(note)", sourceLocation: sourceLocation)
        }
    }

    /// What `qemu-img info` says.
    func information() throws -> String { try fixture.run("qemu-img", ["info", "--output=json", path]) }
}
