import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

@testable import FileProtocol

/// A directory of its own for one test, with an image file in it.
final class TestImage {
    let directory: String
    let path: String

    init(byteCount: UInt64 = 1 << 20, exists: Bool = true) throws {
        BranchTable.install([FileProtocolModule.module.schema])
        directory = try Files.temporaryDirectory(prefix: "coldframe-file")
        path = directory + "/disk.raw"
        if exists {
            try Descriptor.open(path, [.readWrite, .create]).truncate(toByteCount: byteCount)
        }
    }

    deinit { try? Files.removeTree(directory) }

    /// Opens the image as `blockdev-add` would, with more options as JSON.
    func open(_ more: JSONObject = [:], readOnly: Bool = false, autoReadOnly: Bool = false) throws -> any BlockDriver {
        var options: JSONObject = ["driver": "file", "filename": .string(path)]
        for (key, value) in more { options[key] = value }
        let decoded = try BlockdevOptions(QAPIInput(.object(options)))
        let branch = decoded.branch as! BlockdevOptionsFile  // The driver above says so.
        return try FileOpening(decoded, branch, isReadOnly: readOnly, autoReadOnly: autoReadOnly).open()
    }

    /// The error of an open that must fail.
    func failure(_ more: JSONObject = [:], readOnly: Bool = false) -> ColdframeError? {
        do {
            try open(more, readOnly: readOnly).close()
            return nil
        } catch {
            return ColdframeError(wrapping: error)
        }
    }
}

extension BlockDriver {
    func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: count)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Result { () throws in try self.read(into: buffer, at: offset) }
        }
        try result.get()
        return bytes
    }

    func put(_ bytes: [UInt8], at offset: UInt64, flags: WriteFlags = []) throws {
        try bytes.withUnsafeBytes { try self.write($0, at: offset, flags: flags) }
    }
}
