import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

@Suite("Gate of file names found in images")
struct ImageReferenceGateTests {
    /// `<folder>/allowed/base`, `<folder>/secret`, and an image beside each.
    private final class Scratch {
        let folder: String
        init() throws {
            folder = try Files.canonicalPath(try Files.temporaryDirectory(prefix: "cf-gate"))
            try Files.mkdir(folder + "/allowed", mode: 0o700)
            try Files.mkdir(folder + "/allowed-not", mode: 0o700)
            for name in ["/allowed/base", "/allowed-not/base", "/secret"] {
                try Files.replaceAtomically(folder + name, contents: [1])
            }
        }
        deinit { try? Files.removeTree(folder) }
        var gate: ImageReferenceGate { ImageReferenceGate(allowedFolders: [folder + "/allowed"]) }
        func resolve(_ name: String) -> String? {
            try? gate.resolve(name, imageFilename: folder + "/allowed/image.qcow2")
        }
    }

    @Test("Names below an allowed folder are followed, relative ones from the image's folder")
    func allowed() throws {
        let scratch = try Scratch()
        #expect(scratch.resolve("base") == scratch.folder + "/allowed/base")
        #expect(scratch.resolve(scratch.folder + "/allowed/base") == scratch.folder + "/allowed/base")
        #expect(scratch.resolve("../allowed/./base") == scratch.folder + "/allowed/base")
    }

    @Test("'..' does not lead out, nor does a folder whose name only begins alike")
    func parent() throws {
        let scratch = try Scratch()
        #expect(scratch.resolve("../secret") == nil)
        #expect(scratch.resolve("../allowed-not/base") == nil)
        #expect(scratch.resolve(scratch.folder + "/allowed/../secret") == nil)
    }

    @Test("A link does not lead out")
    func link() throws {
        let scratch = try Scratch()
        try Files.symlink(target: "../secret", at: scratch.folder + "/allowed/link")
        #expect(scratch.resolve("link") == nil)
        try Files.symlink(target: "base", at: scratch.folder + "/allowed/inside")
        #expect(scratch.resolve("inside") == scratch.folder + "/allowed/base")
    }

    @Test("Without an allowed folder nothing is followed, and the error says what to do")
    func nothingAllowed() throws {
        let scratch = try Scratch()
        let gate = ImageReferenceGate(allowedFolders: [])
        do throws(ColdframeError) {
            _ = try gate.resolve("base", imageFilename: scratch.folder + "/allowed/image.qcow2")
            Issue.record("it was followed")
        } catch {
            #expect(error.code == .permission)
            #expect(error.message.contains("--allow-backing"))
        }
    }

    @Test("What is no file name is no file name", arguments: ["", "a\0b", "missing"])
    func malformed(_ name: String) throws {
        #expect(try Scratch().resolve(name) == nil)
    }
}
