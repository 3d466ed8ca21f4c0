import LinuxSystem

/// A directory of its own for one test.
final class TestDirectory {
    let path: String
    init() throws { path = try Files.temporaryDirectory(prefix: "coldframe-test") }
    deinit { try? Files.removeTree(path) }
    func file(_ name: String) -> String { "\(path)/\(name)" }
}

/// The error that `body` throws.
func systemError<Value>(_ body: () throws -> Value) -> SystemError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error as? SystemError
    }
}

extension Descriptor {
    func write(text: String) throws { try writeAll(Array(text.utf8)) }

    func put(_ bytes: [UInt8], at offset: UInt64) throws {
        try bytes.withUnsafeBytes { try pwriteAll($0, at: offset) }
    }

    /// One read of at most 64 KiB.
    func readText() throws -> String {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 1)
        defer { buffer.deallocate() }
        return String(decoding: buffer[..<(try read(into: buffer))], as: UTF8.self)
    }

    func preadBytes(at offset: UInt64, count: Int) throws -> [UInt8] {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        defer { buffer.deallocate() }
        return Array(buffer[..<(try preadFull(into: buffer, at: offset))])
    }
}
