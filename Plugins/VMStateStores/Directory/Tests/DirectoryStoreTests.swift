import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import DirectoryStore

/// What only a folder has: other people's files, links, copies.
@Suite struct DirectoryStoreTests {
    /// A folder for a store, gone when the last user is.
    private func folder() throws -> (tools: ToolFolder, path: String) {
        let tools = try ToolFolder()
        let path = try Files.canonicalPath(tools.directory) + "/store"
        try Files.mkdir(path)
        return (tools, path)
    }

    @Test func aStateIsAFileThatOneCanRead() throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        let bytes = StoreContent.bytes(1, count: 10_000)
        try StoreContent.save(StoreContent.label(1, tag: "before upgrade/1"), bytes, to: store)
        let name = "before%20upgrade%2F1.\(StoreContent.label(1).setID).vmstate"
        #expect(try Files.listDirectory(path) == [StoreFolder.markerName, name])
        #expect(try Array(Files.readAll("\(path)/\(name)")[4096...]) == bytes)
        #expect(try Files.status("\(path)/\(name)").permissions == 0o600)
        // Whoever removes it by hand has removed it.
        try Files.unlink("\(path)/\(name)")
        #expect(try store.list().states.isEmpty)
        withExtendedLifetime(tools) {}
    }

    @Test func aFolderOfSomebodyElseIsNotTaken() throws {
        let (tools, path) = try folder()
        try tools.write([1], to: "store/letter.txt")
        #expect(try refusal { _ = try DirectoryStore(path: path) }?.contains("(it has 'letter.txt')") == true)
        #expect(try Files.listDirectory(path) == ["letter.txt"])
    }

    @Test func whatIsNoFolderIsRefused() throws {
        let (tools, path) = try folder()
        try tools.write([1], to: "file")
        try Files.symlink(target: path, at: tools.path("link"))
        for name in ["file", "link"] {
            #expect(try refusal { _ = try DirectoryStore(path: tools.path(name)) }?.contains("is no folder") == true)
        }
        #expect(try refusal { _ = try DirectoryStore(path: tools.path("nothing")) }?.contains("No such file") == true)
        try Files.chmod(path, mode: 0o777)
        #expect(try refusal { _ = try DirectoryStore(path: path) }?.contains("Anybody may write") == true)
    }

    @Test func linksPipesAndFoldersAreNoStates() throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        try StoreContent.save(StoreContent.label(1), [1, 2], to: store)
        let real = try #require(try Files.listDirectory(path).last)
        try Files.symlink(target: real, at: "\(path)/x.\(StoreContent.label(2).setID).vmstate")
        try tools.require("mkfifo", "\(path)/x.\(StoreContent.label(3).setID).vmstate")
        try Files.mkdir("\(path)/x.\(StoreContent.label(4).setID).vmstate")
        try tools.require("cp", "\(path)/\(real)", "\(path)/x.\(StoreContent.label(5).setID).vmstate")
        try tools.write([], to: "store/x.\(StoreContent.label(6).setID).vmstate")
        let listing = try store.list()
        #expect(listing.states.map(\.label) == [StoreContent.label(1)])
        #expect(listing.damaged.count == 5)
        for number in 2...6 {
            #expect(throws: ColdframeError.self) { _ = try store.open(StoreContent.label(number).setID) }
        }
        // A link is removed, not what it leads to.
        try store.discard(StoreContent.label(2).setID)
        #expect(try StoreContent.load(StoreContent.label(1).setID, from: store) == [1, 2])
    }

    @Test func twoFilesOfOneSetAreRefusedByName() throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        try StoreContent.save(StoreContent.label(1), [1], to: store)
        let name = try #require(try Files.listDirectory(path).last)
        try tools.require("cp", "\(path)/\(name)", "\(path)/copy.\(StoreContent.label(1).setID).vmstate")
        let text = try refusal { _ = try store.open(StoreContent.label(1).setID) }
        #expect(text?.contains("copy.\(StoreContent.label(1).setID).vmstate") == true)
    }

    @Test func aNewStoreThatWasNotFinishedIsFinished() throws {
        let (tools, path) = try folder()
        try tools.write([1], to: "store/\(StoreFolder.markerName).half.tmp")
        let store = try DirectoryStore(path: path)
        #expect(VMStateLabel.isSetID(store.identity))
        #expect(try Files.listDirectory(path) == [StoreFolder.markerName])
    }

    // MARK: Names that lead elsewhere by now

    /// Another folder stands under the store's name, with files of somebody else under all names that a state may have.
    private func replaceFolder(_ path: String, _ tools: ToolFolder) throws -> [String: [UInt8]] {
        try Files.rename(from: path, to: path + ".moved")
        try Files.mkdir(path)
        let label = StoreContent.label(1)
        let names = [StateName.unfinished(label.setID), StateName.whole(label), StoreFolder.markerName]
        for name in names { try tools.write([7], to: "store/\(name)") }
        return Dictionary(uniqueKeysWithValues: names.map { ($0, [7]) })
    }

    private func contents(_ path: String) throws -> [String: [UInt8]] {
        Dictionary(uniqueKeysWithValues: try Files.listDirectory(path).map { ($0, try Files.readAll("\(path)/\($0)")) })
    }

    @Test func aFolderThatIsReplacedIsNotTheStore() throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        let label = StoreContent.label(1)
        let writer = try store.begin(label)
        try StoreContent.append([1, 2], to: writer)
        let strangers = try replaceFolder(path, tools)
        try StoreContent.append([3], to: writer)
        _ = try writer.commit(guestClockNanoseconds: 1)
        #expect(try contents(path) == strangers)
        // The store goes on where it is.
        #expect(try StoreContent.load(label.setID, from: store) == [1, 2, 3])
        #expect(try Files.listDirectory(path + ".moved").contains(StateName.whole(label)))
        try store.discard(label.setID)
        #expect(try store.condition(of: label.setID) == .absent)
        try store.begin(label).abandon()
        #expect(try contents(path) == strangers)
        #expect(try Files.listDirectory(path + ".moved") == [StoreFolder.markerName])
    }

    @Test func aFileUnderAWritersNameThatItHasNotMadeIsLeftAlone() throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        let label = StoreContent.label(1)
        let name = StateName.unfinished(label.setID)
        let writer = try store.begin(label)
        try StoreContent.append([1, 2], to: writer)
        try Files.unlink("\(path)/\(name)")
        try tools.write([7], to: "store/\(name)")
        let text = try refusal { _ = try writer.commit(guestClockNanoseconds: 1) }
        #expect(text?.contains("was removed from the store") == true, "\(text ?? "")")
        try writer.abandon()
        #expect(try Files.readAll("\(path)/\(name)") == [7])
        #expect(try store.list().states.isEmpty)
    }

    /// The next owner of the store may have begun the same set anew.
    @Test func aWriterWhoseStoreIsClosedRemovesNothingOfTheNext() throws {
        let (tools, path) = try folder()
        let label = StoreContent.label(1)
        let old = try DirectoryStore(path: path)
        let writer = try old.begin(label)
        old.close()
        let next = try DirectoryStore(path: path)
        try next.discard(label.setID)
        try StoreContent.save(label, [5], to: next)
        try writer.abandon()
        #expect(try StoreContent.load(label.setID, from: next) == [5])
        withExtendedLifetime(tools) {}
    }

    /// Whatever call of a commit fails, what `abandon` takes away is gone.
    @Test(arguments: ["pwrite", "fsync", "rename"]) func aFailedCommitIsAbandoned(operation: String) throws {
        let (tools, path) = try folder()
        let store = try DirectoryStore(path: path)
        for call in 1...2 {
            let writer = try store.begin(StoreContent.label(1))
            SystemCallFaults.inject(onCall: call, errno: Errno.noSpace, matching: [operation])
            let text = try refusal { _ = try writer.commit(guestClockNanoseconds: 1) }
            SystemCallFaults.clear()
            // Only `fsync` is called twice: of the file, and of the folder behind the new name.
            #expect((text == nil) == (call == 2 && operation != "fsync"))
            try writer.abandon()
            #expect(try Files.listDirectory(path) == [StoreFolder.markerName])
        }
        withExtendedLifetime(tools) {}
    }
}
