import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// A directory with images, gone when the test ends.
final class ImageFixture: Sendable {
    let directory: String

    init() throws { directory = try Files.temporaryDirectory(prefix: "qcow2-test") }

    deinit {
        for name in (try? Files.listDirectory(directory)) ?? [] { try? Files.unlink(directory + "/" + name) }
        try? Files.rmdir(directory)
    }

    func path(_ name: String) -> String { directory + "/" + name }

    /// Runs a program that must succeed, and returns what it printed.
    @discardableResult
    func run(
        _ program: String, _ arguments: [String], mayFail: Bool = false,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> String {
        let (status, output) = try runAny(program, arguments)
        #expect(
            status == 0 || mayFail, "\(program) \(arguments.joined(separator: " ")): \(output)",
            sourceLocation: sourceLocation)
        return output
    }

    /// Runs a program; its exit code and output.
    func runAny(_ program: String, _ arguments: [String]) throws -> (status: Int, output: String) {
        let name = path("output-\(SystemRandom.bytes(8).map { String($0, radix: 16) }.joined())")
        let output = try Descriptor.open(name, [.readWrite, .create, .exclusive])
        defer { try? Files.unlink(name) }
        let pid = try ProcessControl.spawn(
            SpawnRequest(
                path: program, arguments: arguments, descriptors: [(output.raw, 1), (output.raw, 2)]))
        let status = try ProcessControl.wait(pid)
        let text = String(decoding: try Files.readAll(name, limit: 64 << 20), as: UTF8.self)
        if case .exited(let code) = status { return (Int(code), text) }
        return (-1, text)
    }

    /// `qemu-img check` finds neither errors nor leaks.
    func expectClean(_ path: String, _ note: String = "", sourceLocation: SourceLocation = #_sourceLocation) throws {
        let (status, output) = try runAny("qemu-img", ["check", "-f", "qcow2", path])
        #expect(status == 0, "\(note) \(output)", sourceLocation: sourceLocation)
    }

    /// `qemu-img check` finds no errors; leaks are allowed.
    func expectNoErrors(_ path: String, _ note: String = "", sourceLocation: SourceLocation = #_sourceLocation) throws {
        let (status, output) = try runAny("qemu-img", ["check", "-f", "qcow2", path])
        #expect(status == 0 || status == 3, "\(note) status \(status): \(output)", sourceLocation: sourceLocation)
    }

    /// The disk's content as `qemu-img` reads it; `snapshot` names an internal snapshot.
    func content(_ path: String, snapshot: String? = nil, byID: Bool = false) throws -> [UInt8] {
        let raw = self.path("convert-\(SystemRandom.bytes(8).map { String($0, radix: 16) }.joined())")
        defer { try? Files.unlink(raw) }
        try run(
            "qemu-img",
            ["convert", "-f", "qcow2", "-O", "raw"]
                + (snapshot.map { ["-l", "snapshot.\(byID ? "id" : "name")=\($0)"] } ?? []) + [
                    path, raw,
                ])
        return try Files.readAll(raw, limit: 1 << 30)
    }
}

/// A node over a file of the test's.
func fileNode(_ path: String, isReadOnly: Bool = false, creates: Bool = false) throws -> BlockNode {
    BlockNode(name: "file", driver: try PlainFile(path: path, isReadOnly: isReadOnly, creates: creates))
}

func openImage(
    _ node: BlockNode, backing: BlockNode? = nil, isReadOnly: Bool = false, l2CacheByteLimit: Int = 32 << 20
) throws -> Qcow2Driver {
    var options = Qcow2Driver.Options()
    options.isReadOnly = isReadOnly
    options.l2CacheByteLimit = l2CacheByteLimit
    return try Qcow2Driver(try Qcow2Image.read(node), backing: backing, options: options)
}

func openImage(_ path: String, backing: BlockNode? = nil, isReadOnly: Bool = false) throws -> Qcow2Driver {
    try openImage(try fileNode(path, isReadOnly: isReadOnly), backing: backing, isReadOnly: isReadOnly)
}

func createImage(
    _ path: String, byteCount: UInt64, clusterByteCount: UInt64 = 65536, refcountBits: UInt64 = 16,
    backingFilename: String? = nil
) throws {
    let node = try fileNode(path, creates: true)
    var options = Qcow2Create.Options(diskByteCount: byteCount)
    options.clusterByteCount = clusterByteCount
    options.refcountBits = refcountBits
    options.backingFilename = backingFilename
    options.backingFormat = backingFilename == nil ? nil : "qcow2"
    try Qcow2Create.write(options, into: node)
    try node.driver.close()
}

extension BlockDriver {
    func readBytes(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
        return bytes
    }

    func writeBytes(_ bytes: [UInt8], at offset: UInt64) throws {
        try bytes.withUnsafeBytes { try write($0, at: offset, flags: []) }
    }
}

func pattern(_ count: Int, _ seed: UInt64) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next() >> 32) }
}

/// Repeatable random numbers (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
