import ColdframeKit
import LinuxSystem

/// A folder that is gone when the test ends, in which tools that nobody here wrote make images and read them.
public final class ToolFolder: Sendable {
    public let directory: String

    public init() throws { directory = try Files.temporaryDirectory(prefix: "conformance") }

    deinit { try? Files.removeTree(directory) }

    public func path(_ name: String) -> String { "\(directory)/\(name)" }

    /// Runs a program to its end: its exit code (-1 if a signal ended it) and all that it printed.
    public func run(_ program: String, _ arguments: [String]) throws -> (status: Int, output: String) {
        let name = path("output-\(SystemRandom.bytes(8).map { String($0, radix: 16) }.joined())")
        let output = try Descriptor.open(name, [.readWrite, .create, .exclusive])
        defer { try? Files.unlink(name) }
        let process = try ProcessControl.spawn(
            SpawnRequest(path: program, arguments: arguments, descriptors: [(output.raw, 1), (output.raw, 2)]))
        let status = try ProcessControl.wait(process)
        let text = String(decoding: try Files.readAll(name, limit: 64 << 20), as: UTF8.self)
        if case .exited(let code) = status { return (Int(code), text) }
        return (-1, text)
    }

    /// Runs a program that must succeed; throws what it printed otherwise.
    @discardableResult
    public func require(_ program: String, _ arguments: String...) throws -> String {
        try require(program, arguments)
    }

    @discardableResult
    public func require(_ program: String, _ arguments: [String]) throws -> String {
        let (status, output) = try run(program, arguments)
        guard status == 0 else {
            throw ColdframeError(.io, "\(program) \(arguments.joined(separator: " ")) ended with \(status): \(output)")
        }
        return output
    }

    /// Writes a file of its own.
    @discardableResult
    public func write(_ bytes: [UInt8], to name: String) throws -> String {
        let file = try Descriptor.open(path(name), [.writeOnly, .create, .truncate])
        try file.writeAll(bytes)
        file.close()
        return path(name)
    }

    /// An image of the given disk, made by `qemu-img convert`; nil if qemu-img does not make the format.
    public func image(of disk: [UInt8], format: String, options: String = "", name: String = "image") throws -> String?
    {
        let raw = try write(disk, to: "disk.raw")
        defer { try? Files.unlink(raw) }
        let result = try run(
            "qemu-img",
            ["convert", "-q", "-f", "raw", "-O", format] + (options.isEmpty ? [] : ["-o", options]) + [raw, path(name)])
        return result.status == 0 ? path(name) : nil
    }

    /// The disk in an image as qemu-img reads it; nil if it does not read the format.
    public func disk(of image: String, format: String) throws -> [UInt8]? {
        let raw = path("converted.raw")
        defer { try? Files.unlink(raw) }
        let result = try run("qemu-img", ["convert", "-q", "-f", format, "-O", "raw", image, raw])
        return result.status == 0 ? try Files.readAll(raw, limit: 1 << 30) : nil
    }

    /// A disk of so many bytes with random data, text that packs well, and holes of several sizes.
    public static func mixedDisk(byteCount: Int, seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        var disk = [UInt8](repeating: 0, count: byteCount)
        for piece in 0..<12 {
            let count = min(Int.random(in: 1...200_000, using: &generator), byteCount)
            let start = Int.random(in: 0...byteCount - count, using: &generator)
            let bytes =
                piece % 2 == 0
                ? SeededGenerator.bytes(count, seed: generator.next())
                : [UInt8](repeating: UInt8(64 + piece), count: count)
            disk.replaceSubrange(start..<start + count, with: bytes)
        }
        return disk
    }
}
