import ColdframeKit
import Testing

@testable import ImageTools

/// A tree with links: 0 is the top, with the directory `a` (1), the file `a/f` (2) and the links below.
private final class LinkedTree: GuestFilesystem {
    let typeName = "test"
    let threadModel = ThreadModel.serialized
    let memoryByteLimit = 0
    let information = GuestFilesystemInformation(variant: "test", label: nil, identity: nil, byteCount: 0)
    let root = GuestFileID(0)
    private let names: [UInt64: [String: UInt64]] = [
        0: ["a": 1, "up": 3, "absolute": 4, "loop": 5, "outside": 6], 1: ["f": 2],
    ]
    private let targets: [UInt64: String] = [3: "a/../a", 4: "/a/f", 5: "loop", 6: "../../../../a/f"]

    func attributes(of file: GuestFileID) throws(ColdframeError) -> GuestFileAttributes {
        GuestFileAttributes(
            kind: targets[file.number] != nil ? .link : names[file.number] != nil ? .directory : .regular, byteCount: 0)
    }
    func lookUp(_ name: String, in directory: GuestFileID) throws(ColdframeError) -> GuestFileID? {
        names[directory.number]?[name].map(GuestFileID.init)
    }
    func list(
        _ directory: GuestFileID, from position: UInt64, limit: Int
    ) throws(ColdframeError) -> GuestDirectoryPage { GuestDirectoryPage(entries: [], next: nil) }
    func read(
        _ file: GuestFileID, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) -> Int { 0 }
    func linkTarget(of file: GuestFileID) throws(ColdframeError) -> String { targets[file.number] ?? "" }
}

@Suite struct GuestPathTests {
    private let tree = LinkedTree().forAnyThread

    @Test(
        arguments: [
            ("/", 0), ("", 0), ("a/f", 2), ("//a/./f", 2), ("/..", 0), ("/a/../../a/f", 2), ("up/f", 2),
            ("absolute", 2),
            ("outside", 2), ("up/../a", 1),
        ] as [(String, UInt64)]) func aPathLeadsToItsFile(path: String, number: UInt64) throws
    {
        #expect(try GuestPath.find(path, in: tree).number == number)
    }

    @Test(arguments: [
        ("a/x", "There is no '/a/x'"), ("a/f/x", "'/a/f' is no directory"), ("loop", "more than 40 links"),
        (String(repeating: "a/../", count: 3000), "more than 4096 parts"),
    ]) func aPathThatLeadsNowhereIsRefused(path: String, text: String) {
        do {
            _ = try GuestPath.find(path, in: tree)
            Issue.record("'\(path)' was found")
        } catch { #expect(error.message.contains(text)) }
    }
}
