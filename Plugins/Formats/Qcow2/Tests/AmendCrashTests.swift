import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What a crash leaves of an amendment: after every call that changed the file, with some of the unflushed calls missing, and with
/// single sectors of the header missing.
@Suite struct AmendCrashTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        private let changes: AmendRequest
        private var newNameByteCount: Int?
        private(set) var version: UInt32 = 3
        private(set) var nameByteCount = 0
        var testDescription: String { name }

        init(
            name: String, request: AmendRequest, version: UInt32 = 3, nameByteCount: Int = 0,
            newNameByteCount: Int? = nil
        ) {
            self.name = name
            changes = request
            self.version = version
            self.nameByteCount = nameByteCount
            self.newNameByteCount = newNameByteCount
        }

        func request(_ image: AmendFixture) -> AmendRequest {
            var request = changes
            request.backingFilename = newNameByteCount.map {
                AmendFixture.name(of: image.fixture.path("base"), byteCount: $0)
            }
            return request
        }

        static let all: [Case] = [
            Case(name: "width", request: .init(refcountBits: 64)),
            Case(name: "up", request: .init(version: 3, hasLazyRefcounts: true, refcountBits: 8), version: 2),
            Case(name: "up with a long name", request: .init(version: 3), version: 2, nameByteCount: 700),
            Case(name: "down", request: .init(version: 2)),
            Case(name: "down with a backing file", request: .init(version: 2), nameByteCount: 450),
            Case(name: "a longer name", request: .init(), nameByteCount: 60, newNameByteCount: 1000),
            Case(name: "a shorter name", request: .init(), nameByteCount: 1000, newNameByteCount: 60),
        ]
    }

    /// The file before, the recorded calls.
    private func record(_ image: AmendFixture, _ item: Case) throws -> (base: [UInt8], calls: [RecordingDriver.Call]) {
        let base = try Files.readAll(image.path, limit: 1 << 30)
        let recorder = RecordingDriver(try PlainFile(path: image.path))
        try image.amend(item.request(image), on: BlockNode(name: "file", driver: recorder))
        return (base, recorder.calls)
    }

    private func expectWhole(
        _ image: AmendFixture, _ bytes: [UInt8], _ names: Set<String>, _ note: String, isQuick: Bool
    )
        throws
    {
        let path = image.fixture.path("crashed")
        let file = try Descriptor.open(path, [.writeOnly, .create, .truncate])
        try file.writeAll(bytes)
        file.close()
        try image.expectUnchangedContent(path, note, isQuick: isQuick)
        let read = try Qcow2Image.read(try fileNode(path, isReadOnly: true))
        #expect(names.contains(read.backingFilename ?? ""), "\(note): \(read.backingFilename ?? "")")
    }

    @Test(arguments: Case.all) func everyCrashLeavesTheOldOrTheNewImage(item: Case) throws {
        let image = try AmendFixture(version: item.version, nameByteCount: item.nameByteCount)
        let old = try Qcow2Image.read(try fileNode(image.path, isReadOnly: true)).backingFilename ?? ""
        let (base, calls) = try record(image, item)
        let names = [old, try Qcow2Image.read(try fileNode(image.path, isReadOnly: true)).backingFilename ?? ""]
        #expect(calls.count > 1)
        var generator = SeededGenerator(seed: 7)
        var bytes = base
        var flushed = base
        var epoch: [RecordingDriver.Call] = []
        for (index, call) in calls.enumerated() {
            let note = "\(item.name), call \(index) of \(calls.count)"
            if case .flush = call {
                for round in 0..<3 {
                    let kept = epoch.filter { call in
                        if case .resize = call { return true }
                        return Bool.random(using: &generator)
                    }
                    let crashed = RecordingDriver.replay(kept, on: flushed)
                    try expectWhole(image, crashed, Set(names), "\(note), round \(round)", isQuick: round > 0)
                }
                flushed = bytes
                epoch = []
                continue
            }
            for torn in Self.torn(call) {
                try expectWhole(
                    image, RecordingDriver.replay([torn], on: bytes), Set(names), "\(note), torn", isQuick: true)
            }
            epoch.append(call)
            bytes = RecordingDriver.replay([call], on: bytes)
            try expectWhole(image, bytes, Set(names), note, isQuick: index % 4 != 0)
        }
        #expect(try Files.readAll(image.path, limit: 1 << 30).prefix(512) == bytes.prefix(512))
    }

    /// A write of the header of which only one sector, or all but one, has reached the disk.
    private static func torn(_ call: RecordingDriver.Call) -> [RecordingDriver.Call] {
        guard case .write(offset: 0, let bytes) = call, bytes.count > 512 else { return [] }
        return [
            .write(offset: 0, bytes: Array(bytes.prefix(512))), .write(offset: 512, bytes: Array(bytes.dropFirst(512))),
        ]
    }

    /// Whatever call fails: the image is as it was or as it was to be.
    @Test(arguments: Case.all) func anyFailedCallLeavesTheOldOrTheNewImage(item: Case) throws {
        var index = 0
        while true {
            let image = try AmendFixture(version: item.version, nameByteCount: item.nameByteCount)
            let faulty = FaultyDriver(try PlainFile(path: image.path))
            faulty.fail(call: index)
            do {
                try image.amend(item.request(image), on: BlockNode(name: "file", driver: faulty))
                // What only gives space back may fail.
                try image.expectUnchangedContent(nil, "\(item.name), without call \(index)", isQuick: index % 4 != 0)
                if faulty.callCount <= index { break }
            } catch {
                try image.expectUnchangedContent(nil, "\(item.name), call \(index) failed", isQuick: index % 4 != 0)
            }
            index += 1
        }
        #expect(index > 1)
    }
}
