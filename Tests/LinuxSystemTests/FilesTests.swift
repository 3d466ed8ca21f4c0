import LinuxSystem
import Testing

@Suite struct FilesTests {
    @Test func replacingLeavesNoOtherFile() throws {
        let directory = try TestDirectory()
        try Files.replaceAtomically(directory.file("f"), contents: Array("old".utf8))
        try Files.replaceAtomically(directory.file("f"), contents: Array("new".utf8))
        #expect(try Files.readAll(directory.file("f"), limit: 100) == Array("new".utf8))
        #expect(try Files.listDirectory(directory.path) == ["f"])
        #expect(try Files.status(directory.file("f")).permissions == 0o600)
    }

    @Test(arguments: ["open", "write", "fsync", "rename"])
    func aFailedReplaceKeepsTheOldFile(_ operation: String) throws {
        let directory = try TestDirectory()
        try Files.replaceAtomically(directory.file("f"), contents: Array("old".utf8))
        SystemCallFaults.inject(onCall: 1, errno: Errno.noSpace, matching: [operation])
        let error = systemError { try Files.replaceAtomically(directory.file("f"), contents: Array("new".utf8)) }
        SystemCallFaults.clear()
        #expect(error?.operation == operation)
        #expect(try Files.readAll(directory.file("f"), limit: 100) == Array("old".utf8))
        #expect(try Files.listDirectory(directory.path) == ["f"])
    }

    @Test func aFileOverTheLimitIsRefused() throws {
        let directory = try TestDirectory()
        try Files.replaceAtomically(directory.file("f"), contents: [UInt8](repeating: 0, count: 101))
        #expect(systemError { try Files.readAll(directory.file("f"), limit: 100) }?.errno == Errno.fileTooBig)
    }

    @Test func parentsAreMade() throws {
        let directory = try TestDirectory()
        try Files.mkdirWithParents(directory.file("a/b/c"))
        try Files.mkdirWithParents(directory.file("a/b/c"))
        #expect(try Files.status(directory.file("a/b/c")).isDirectory)
        try Files.replaceAtomically(directory.file("a/f"), contents: [])
        #expect(systemError { try Files.mkdirWithParents(directory.file("a/f")) }?.errno == Errno.exists)
    }

    @Test func removingDoesNotFollowLinks() throws {
        let directory = try TestDirectory()
        let other = try TestDirectory()
        try Files.replaceAtomically(other.file("keep"), contents: [])
        try Files.mkdir(directory.file("d"))
        try Files.symlink(target: other.path, at: directory.file("d/link"))
        try Files.removeTree(directory.file("d"))
        #expect(!Files.exists(directory.file("d")))
        #expect(Files.exists(other.file("keep")))
        try Files.removeTree(directory.file("nothing"))
    }

    @Test func pathsAreTakenApart() {
        #expect(Files.parentDirectory(of: "/a/b") == "/a")
        #expect(Files.parentDirectory(of: "/a/b//") == "/a")
        #expect(Files.parentDirectory(of: "/a") == "/")
        #expect(Files.parentDirectory(of: "a") == ".")
        #expect(Files.lastComponent(of: "/a/b") == "b")
    }

    @Test func canonicalPathResolvesLinks() throws {
        let directory = try TestDirectory()
        try Files.symlink(target: ".", at: directory.file("l"))
        #expect(try Files.canonicalPath(directory.file("l/l/")) == Files.canonicalPath(directory.path))
    }

    @Test func randomTextIsAUUID() {
        let text = UUIDText.generate()
        #expect(text.utf8.count == 36)
        #expect(Array(text)[14] == "4")
        #expect("89ab".contains(Array(text)[19]))
        #expect(text != UUIDText.generate())
    }
}
