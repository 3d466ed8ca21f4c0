import ColdframeKit
import LinuxSystem
import Testing

@testable import AgentCore

@Suite("Intent journal")
struct JournalTests {
    /// A journal file in a folder of its own, which goes with it.
    private final class Scratch {
        let folder: String
        var path: String { folder + "/journal" }
        init() throws { folder = try Files.temporaryDirectory(prefix: "cf-journal") }
        deinit {
            try? Files.unlink(path)
            try? Files.rmdir(folder)
        }
    }

    private func intent(_ uuid: String) -> Intent {
        Intent(
            uuid: uuid, operation: .save, tag: "t",
            images: [
                Intent.Image(
                    nodeName: "d0", path: "/images/d0", device: 7, inode: UInt64.max, birthNanoseconds: 9,
                    format: "qcow2",
                    snapshot: Intent.Snapshot(id: "3", name: "t", dateSeconds: 4, dateNanoseconds: 5))
            ])
    }

    @Test("What was begun and not cleared is pending for the next agent, with its last step")
    func pendingSurvives() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        try journal.record(.begin, intent("b"))
        try journal.record(.cut, intent("a"))
        try journal.record(.cleared, intent("b"))
        let pending = try Journal(path: scratch.path).pending
        #expect(pending.map(\.step) == [.cut])
        #expect(pending.map(\.intent) == [intent("a")])
    }

    @Test("A second process of the guest is named until the record without it")
    func replacement() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        var replacing = intent("a")
        replacing.replacement = Intent.Replacement(slot: 1, guestOptions: ["driver": "qemu", "id": "g"])
        try journal.record(.begin, replacing)
        #expect(try Journal(path: scratch.path).interrupted.map(\.intent) == [replacing])
        replacing.replacement = nil
        try journal.record(.begin, replacing)
        #expect(try Journal(path: scratch.path).interrupted.map(\.intent) == [replacing])
    }

    @Test("When nothing is pending the file is empty")
    func emptied() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        try journal.record(.cleared, intent("a"))
        #expect(try Files.status(scratch.path).byteCount == 0)
        #expect(try Journal(path: scratch.path).pending.isEmpty)
    }

    @Test("Any prefix of the file is a journal: a torn record is as if it had not been written")
    func everyPrefix() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        let first = try Files.status(scratch.path).byteCount
        try journal.record(.cut, intent("a"))
        let whole = try Files.readAll(scratch.path, limit: 1 << 20)
        for length in 0...whole.count {
            try Files.replaceAtomically(scratch.path, contents: Array(whole[..<length]))
            let steps = try Journal(path: scratch.path).pending.map(\.step)
            if length == whole.count {
                #expect(steps == [.cut])
            } else if length >= Int(first) {
                #expect(steps == [.begin])
            } else {
                #expect(steps.isEmpty)
            }
        }
    }

    @Test("A record after a torn one counts, and the torn one never comes back")
    func writesAfterTornTail() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        let whole = try Files.readAll(scratch.path, limit: 1 << 20)
        try Files.replaceAtomically(scratch.path, contents: whole + whole.dropLast(5))
        try Journal(path: scratch.path).record(.begin, intent("b"))
        #expect(try Journal(path: scratch.path).pending.map(\.intent.uuid) == ["a", "b"])
    }

    @Test("A flipped bit ends the journal there")
    func flippedBits() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        let whole = try Files.readAll(scratch.path, limit: 1 << 20)
        for index in whole.indices where index < 12 || index >= 16 {
            var bytes = whole
            bytes[index] ^= 0x10
            try Files.replaceAtomically(scratch.path, contents: bytes)
            #expect(try Journal(path: scratch.path).pending.isEmpty, "byte \(index)")
        }
    }

    @Test("A write that fails is an error, and the step is not taken for recorded")
    func failingWrite() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        SystemCallFaults.inject(onCall: 1, errno: 28, matching: nil, threadOnly: true)
        defer { SystemCallFaults.clear() }
        #expect(throws: (any Error).self) { try journal.record(.begin, intent("a")) }
        SystemCallFaults.clear()
        #expect(try Journal(path: scratch.path).pending.isEmpty)
    }

    @Test("An intent that is too long to be read back is not taken")
    func tooLong() throws {
        let scratch = try Scratch()
        let journal = try Journal(path: scratch.path)
        try journal.record(.begin, intent("a"))
        var long = intent("b")
        long.images = (0..<8192).map { index in
            var image = long.images[0]
            image.path = "/images/" + String(repeating: "x", count: 128) + "\(index)"
            return image
        }
        #expect(throws: ColdframeError.self) { try journal.record(.begin, long) }
        try journal.record(.begin, intent("c"))
        #expect(try Journal(path: scratch.path).pending.map(\.intent.uuid) == ["a", "c"])
    }
}
