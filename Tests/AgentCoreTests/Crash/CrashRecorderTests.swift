import ConformanceKit
import LinuxSystem
import Testing

/// The oracle of the crash tests is itself tested: what it may lose, and what it must keep.
@Suite("Recorder of changes", .serialized)
struct CrashRecorderTests {
    /// The contents of file `name` in the states after `count` changes, as texts; "" where it is missing.
    private func outcomes(_ log: CrashLog, _ path: String, after count: Int? = nil) -> Set<String> {
        var generator = CrashGenerator(state: 1)
        return Set(
            (0..<200).map { _ in
                let tree = log.powerLoss(after: count ?? log.changes.count, using: &generator)
                return tree.names[path].flatMap { tree.contents[$0] }.map { String(decoding: $0, as: UTF8.self) } ?? ""
            })
    }

    private func record(_ body: (_ folder: String) throws -> Void) throws -> (CrashLog, folder: String) {
        let folder = try Files.canonicalPath(Files.temporaryDirectory(prefix: "cf-recorder"))
        defer { try? Files.removeTree(folder) }
        let file = try Descriptor.open(folder + "/old", [.writeOnly, .create])
        try file.writeAll(Array("aaaa".utf8))
        let recorder = try CrashRecorder(folder: folder)
        do { try body(folder) } catch {
            _ = recorder.finish()
            throw error
        }
        return (recorder.finish(), folder)
    }

    @Test("A write that was not flushed is there or not; one that was is there")
    func writes() throws {
        let (log, folder) = try record { folder in
            let file = try Descriptor.open(folder + "/old", .readWrite)
            try Array("bb".utf8).withUnsafeBytes { try file.pwriteAll($0, at: 0) }
            try file.synchronizeData()
            try Array("cc".utf8).withUnsafeBytes { try file.pwriteAll($0, at: 2) }
        }
        #expect(outcomes(log, folder + "/old") == ["bbaa", "bbcc"])
        #expect(outcomes(log, folder + "/old", after: 1) == ["aaaa", "bbaa"])
        let killed = log.kill(after: log.changes.count)
        #expect(killed.names[folder + "/old"].flatMap { killed.contents[$0] } == Array("bbcc".utf8))
    }

    @Test("A name is durable when its folder was flushed, not before")
    func names() throws {
        let (log, folder) = try record { folder in
            let file = try Descriptor.open(folder + "/new", [.writeOnly, .create])
            try file.writeAll(Array("x".utf8))
            try file.synchronize()
            try Files.synchronizeDirectory(folder)
            try Files.unlink(folder + "/new")
        }
        #expect(outcomes(log, folder + "/new", after: 3) == ["", "x"])
        #expect(outcomes(log, folder + "/new", after: 4) == ["x"])
        #expect(outcomes(log, folder + "/new") == ["", "x"])
    }

    @Test("A file that is replaced atomically is the old or the new one, whole")
    func replaced() throws {
        let (log, folder) = try record { try Files.replaceAtomically($0 + "/old", contents: Array("new".utf8)) }
        for count in 0..<log.changes.count {
            #expect(outcomes(log, folder + "/old", after: count).isSubset(of: ["aaaa", "new"]))
        }
        #expect(outcomes(log, folder + "/old") == ["new"])
    }
}
