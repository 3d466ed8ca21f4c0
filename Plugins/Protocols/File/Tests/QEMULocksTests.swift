import ColdframeKit
import LinuxSystem
import Testing

@testable import FileProtocol

/// Both directions against QEMU's own tools.
@Suite(.enabled(if: QEMUTools.arePresent, "needs qemu-img and qemu-io (package qemu-utils)"))
struct QEMULocksTests {
    @Test(arguments: ["raw", "qcow2"])
    func qemuRefusesWhatWeWrite(_ format: String) throws {
        let image = try TestImage(exists: false)
        try QEMUTools.makeImage(image.path, format: format)
        let disk = try image.open()
        let write = try QEMUTools.run("qemu-io", ["-f", format, "-c", "write 0 512", image.path])
        #expect(write.output.contains("Failed to get \"write\" lock") || write.output.contains("Failed to get shared"))
        #expect(write.code != 0)
        try disk.close()
        #expect(try QEMUTools.run("qemu-io", ["-f", format, "-c", "write 0 512", image.path]).code == 0)
    }

    @Test(arguments: ["info", "check"])
    func qemuImgNeedsForceShareBesideAWriter(_ verb: String) throws {
        let image = try TestImage(exists: false)
        try QEMUTools.makeImage(image.path, format: "qcow2")
        let disk = try image.open()
        let plain = try QEMUTools.run("qemu-img", [verb, image.path])
        #expect(plain.output.contains("Failed to get shared \"write\" lock"))
        #expect(try QEMUTools.run("qemu-img", [verb, "-U", image.path]).code == 0)
        try disk.close()
        #expect(try QEMUTools.run("qemu-img", [verb, image.path]).code == 0)
    }

    @Test func readersShareWithQemu() throws {
        let image = try TestImage(exists: false)
        try QEMUTools.makeImage(image.path, format: "qcow2")
        let disk = try image.open(readOnly: true)
        #expect(try QEMUTools.run("qemu-img", ["info", image.path]).code == 0)
        #expect(try QEMUTools.run("qemu-io", ["-f", "qcow2", "-c", "write 0 512", image.path]).code != 0)
        try disk.close()
    }

    @Test(arguments: ["raw", "qcow2"])
    func weRefuseWhatQemuWrites(_ format: String) throws {
        let image = try TestImage(exists: false)
        try QEMUTools.makeImage(image.path, format: format)
        let holder = try QEMUTools.Holder(image.path, format: format, isReadOnly: false)
        #expect(image.failure()?.code == .busy)
        #expect(image.failure(readOnly: true)?.message.hasPrefix("Failed to get shared \"write\" lock") == true)
        try image.open(["force-share": true], readOnly: true).close()
        try holder.end()
        try image.open().close()
    }

    @Test func weShareWithAReaderOfQemu() throws {
        let image = try TestImage(exists: false)
        try QEMUTools.makeImage(image.path, format: "qcow2")
        let holder = try QEMUTools.Holder(image.path, format: "qcow2", isReadOnly: true)
        try image.open(readOnly: true).close()
        #expect(image.failure()?.message.hasPrefix("Failed to get \"write\" lock") == true)
        try holder.end()
    }
}

/// Runs tools of QEMU.
enum QEMUTools {
    static let arePresent = ["/usr/bin/qemu-img", "/usr/bin/qemu-io"].allSatisfy { Files.exists($0) }

    static func makeImage(_ path: String, format: String) throws {
        let made = try run("qemu-img", ["create", "-f", format, path, "4M"])
        guard made.code == 0 else { throw ColdframeError(.io, made.output) }
    }

    /// Runs a tool to its end; both of its streams are the output.
    static func run(_ tool: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
        let (readEnd, writeEnd) = try pipe()
        let pid = try ProcessControl.spawn(
            SpawnRequest(
                path: tool, arguments: arguments,
                descriptors: [(source: writeEnd.raw, target: 1), (source: writeEnd.raw, target: 2)]))
        writeEnd.close()
        var output: [UInt8] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 1)
        defer { buffer.deallocate() }
        while true {
            let count = try readEnd.read(into: buffer)
            if count == 0 { break }
            output.append(contentsOf: buffer[..<count])
        }
        guard case .exited(let code) = try ProcessControl.wait(pid) else {
            return (-1, String(decoding: output, as: UTF8.self))
        }
        return (code, String(decoding: output, as: UTF8.self))
    }

    /// A qemu-io that has an image open until it is ended.
    final class Holder {
        private let pid: Int32
        private let input: Descriptor

        init(_ path: String, format: String, isReadOnly: Bool) throws {
            let (inputRead, inputWrite) = try pipe()
            let (outputRead, outputWrite) = try pipe()
            input = inputWrite
            pid = try ProcessControl.spawn(
                SpawnRequest(
                    path: "qemu-io", arguments: (isReadOnly ? ["-r"] : []) + ["-f", format, path],
                    descriptors: [(source: inputRead.raw, target: 0), (source: outputWrite.raw, target: 1)]))
            outputWrite.close()
            // Its answer to a command says that the image is open and locked.
            try input.writeAll(Array("length\n".utf8))
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 1)
            defer { buffer.deallocate() }
            var output = ""
            while !output.contains("4 MiB") {
                let count = try outputRead.read(into: buffer)
                if count == 0 { throw ColdframeError(.io, "qemu-io could not open the image: \(output)") }
                output += String(decoding: buffer[..<count], as: UTF8.self)
            }
        }

        func end() throws {
            input.close()
            _ = try ProcessControl.wait(pid)
        }
    }
}
