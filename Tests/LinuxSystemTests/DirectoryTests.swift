import LinuxSystem
import Testing

/// Work in an open directory, whose name may lead elsewhere.
@Suite struct DirectoryTests {
    @Test func aDirectoryStaysTheSameWhenItsNameLeadsElsewhere() throws {
        let folder = try TestDirectory()
        let path = folder.file("d")
        try Files.mkdir(path)
        let directory = try Directory(path)
        try directory.open("a", [.writeOnly, .create, .exclusive]).writeAll([1])
        try Files.rename(from: path, to: folder.file("moved"))
        try Files.mkdir(path)
        try Files.replaceAtomically(path + "/a", contents: [7])
        try directory.rename(from: "a", to: "b")
        try directory.replaceAtomically("c", contents: [2])
        #expect(try directory.names() == ["b", "c"])
        #expect(try directory.names() == ["b", "c"], "each listing begins at the beginning")
        #expect(try Files.listDirectory(folder.file("moved")) == ["b", "c"])
        #expect(try Files.readAll(folder.file("moved/c")) == [2])
        try directory.unlink("b")
        #expect(!directory.contains("b") && directory.contains("c"))
        #expect(try Files.readAll(path + "/a") == [7])
        #expect(try directory.status(of: "c").isSameFile(as: Files.status(folder.file("moved/c"))))
        #expect(try !directory.status(of: "c").isSameFile(as: Files.status(path + "/a")))
    }

    @Test(arguments: ["", ".", "..", "a/b", "/etc", "a\0b"]) func aNameIsOneComponent(name: String) throws {
        let folder = try TestDirectory()
        let directory = try Directory(folder.path)
        try directory.replaceAtomically("a", contents: [1])
        let calls: [() throws -> Void] = [
            { _ = try directory.open(name, [.readWrite, .create]) },
            { try directory.unlink(name) },
            { try directory.rename(from: "a", to: name) },
            { try directory.rename(from: name, to: "a") },
            { _ = try directory.status(of: name) },
        ]
        for call in calls { #expect(systemError(call)?.errno == Errno.invalid) }
        #expect(try Files.readAll(folder.file("a")) == [1])
    }

    @Test func linksAreNotFollowed() throws {
        let folder = try TestDirectory()
        try Files.replaceAtomically(folder.file("a"), contents: [1])
        try Files.symlink(target: "a", at: folder.file("link"))
        try Files.symlink(target: ".", at: folder.file("here"))
        let directory = try Directory(folder.path)
        #expect(systemError { _ = try directory.open("link", .readOnly) } != nil)
        #expect(try directory.status(of: "link").isSymbolicLink)
        #expect(systemError { _ = try Directory(folder.file("here"), followLinks: false) } != nil)
        _ = try Directory(folder.file("here"))
        #expect(systemError { _ = try Directory(folder.file("a")) }?.errno == Errno.notDirectory)
    }
}
