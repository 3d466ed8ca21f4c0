import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What power loss leaves of a first cluster whose names and extensions change, on a disk that writes each sector by itself:
/// the old ones or the new ones, whichever sectors of what was not flushed are missing.
@Suite struct HeaderCrashTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var clusterByteCount: UInt64 = 65536
        var nameByteCount = 0
        var dataNameByteCount = 0
        var foreignByteCount = 0
        var hasFeatureNames = true
        var testDescription: String {
            "\(clusterByteCount): name \(nameByteCount), data file \(dataNameByteCount), foreign \(foreignByteCount)"
                + (hasFeatureNames ? "" : ", no feature names")
        }

        static let all: [Case] = [
            Case(), Case(nameByteCount: 30), Case(nameByteCount: 1000),
            Case(nameByteCount: 100, hasFeatureNames: false),
            Case(nameByteCount: 400, foreignByteCount: 40), Case(dataNameByteCount: 20), Case(dataNameByteCount: 300),
            Case(dataNameByteCount: 900), Case(nameByteCount: 500, foreignByteCount: 900),
            Case(nameByteCount: 30, foreignByteCount: 9000), Case(clusterByteCount: 4096, nameByteCount: 700),
            Case(clusterByteCount: 4096, dataNameByteCount: 600), Case(clusterByteCount: 2048, nameByteCount: 200),
            Case(clusterByteCount: 512, nameByteCount: 100),
        ]
    }

    /// All that somebody reads of a first cluster, but the names of features.
    private struct Content: Equatable {
        var backingFilename: String?
        var extensions: [HeaderExtensions.Extension]
        var autoclear: UInt64
        var featureNames: [HeaderExtensions.FeatureName] = []

        init(_ bytes: [UInt8]) throws {
            let file = MemoryFile()
            file.replace(with: bytes)
            let image = try Qcow2Image.read(BlockNode(name: "file", driver: file))
            backingFilename = image.backingFilename
            autoclear = image.header.autoclear
            // The order of extensions says nothing.
            extensions = image.extensions.raw.filter { $0.kind != 0x6803_F857 }.sorted { $0.kind < $1.kind }
            featureNames = image.extensions.featureNames
        }

        func isSame(as other: Content) -> Bool {
            var (mine, theirs) = (self, other)
            mine.featureNames = []
            theirs.featureNames = []
            return mine == theirs
        }
    }

    /// The image, and its data file if it has one.
    private func make(_ item: Case, _ fixture: ImageFixture) throws -> BlockNode? {
        var options = Qcow2Create.Options(diskByteCount: 1 << 20)
        options.clusterByteCount = item.clusterByteCount
        if item.nameByteCount > 0 {
            options.backingFilename = String(repeating: "b", count: item.nameByteCount)
            options.backingFormat = "raw"
        }
        let node = try fileNode(fixture.path("a"), creates: true)
        let data = item.dataNameByteCount > 0 ? try fileNode(fixture.path("data"), creates: true) : nil
        try Qcow2Create.write(options, into: node, dataFile: data)
        // Other names and extensions than creating gives.
        let image = try Qcow2Image.read(node)
        var cluster = HeaderCluster(
            header: image.header, extensions: image.extensions, backingFilename: image.backingFilename)
        if data != nil {
            cluster.extensions.setExternalDataFilename(String(repeating: "d", count: item.dataNameByteCount))
        }
        if item.foreignByteCount > 0 {
            try cluster.addForeign([UInt8](repeating: 0xAB, count: item.foreignByteCount))
        }
        if !item.hasFeatureNames { cluster.extensions.setFeatureNames(false) }
        let bytes = try cluster.encode()
        try node.driver.writeBytes(
            bytes + [UInt8](repeating: 0, count: Int(item.clusterByteCount) - bytes.count), at: 0)
        try node.driver.close()
        return data
    }

    /// The names in it lead nowhere: QEMU is told what to open.
    private func expectClean(_ fixture: ImageFixture, hasData: Bool, _ note: String) throws {
        func file(_ name: String) -> String { "{\"driver\": \"file\", \"filename\": \"\(fixture.path(name))\"}" }
        let image =
            "json:{\"driver\": \"qcow2\", \"backing\": null, \"file\": \(file("a"))"
            + (hasData ? ", \"data-file\": \(file("data"))" : "") + "}"
        let (status, output) = try fixture.runAny("qemu-img", ["check", image])
        #expect(status == 0 || status == 63 && hasData, "\(note): \(output)")
    }

    private func bitmap(_ name: String) -> DirtyBitmap {
        let bitmap = DirtyBitmap(name: name, granularity: 65536, diskByteCount: 1 << 20)
        bitmap.update { $0.isPersistent = true }
        bitmap.setAll()
        return bitmap
    }

    private func changes(_ item: Case) -> [(Qcow2Driver) throws -> Void] {
        let limit = item.clusterByteCount < 4096 ? 200 : 1023
        func rename(_ count: Int, _ format: String?) -> (Qcow2Driver) throws -> Void {
            { try $0.setBackingFile(name: String(repeating: "n", count: min(count, limit)), format: format) }
        }
        var changes: [(Qcow2Driver) throws -> Void] = []
        changes.append { try $0.storeBitmaps([self.bitmap("one")]) }
        changes.append(rename(40, "qcow2"))
        changes.append { try $0.storeBitmaps([self.bitmap("one"), self.bitmap("two")]) }
        changes.append(rename(1023, "raw"))
        changes.append { try $0.storeBitmaps([]) }
        changes.append(rename(350, nil))
        changes.append { try $0.setBackingFile(name: nil, format: nil) }
        changes.append { try $0.storeBitmaps([self.bitmap("one")]) }
        changes.append(rename(700, "qcow2"))
        return changes
    }

    @Test(arguments: Case.all) func powerLossLeavesTheOldOrTheNewHeader(item: Case) throws {
        let fixture = try ImageFixture()
        let data = try make(item, fixture)
        let path = fixture.path("a")
        let recorder = RecordingDriver(try PlainFile(path: path))
        let node = BlockNode(name: "file", driver: recorder)
        let backing = item.nameByteCount > 0 ? BlockNode(name: "base", driver: MemoryFile()) : nil
        let driver = try Qcow2Driver(try Qcow2Image.read(node), backing: backing, dataFile: data, options: .init())
        _ = try driver.loadBitmaps()
        var generator = SeededGenerator(seed: 11)
        var bytes = try Files.readAll(path, limit: 1 << 30)
        var seen = recorder.calls.count
        var old = try Content(bytes)
        for (index, change) in changes(item).enumerated() {
            try change(driver)
            let calls = Array(recorder.calls[seen...])
            seen += calls.count
            let new = try Content(RecordingDriver.replay(calls, on: bytes))
            #expect(!new.isSame(as: old), "\(item), change \(index)")
            bytes = try expectOldOrNew(old, new, calls, on: bytes, "\(item), change \(index)", &generator)
            // What QEMU reads is what we read.
            let told = try fixture.run("qemu-img", ["info", "-U", "--output=json", path])
            #expect(
                told.contains("\"backing-filename\": \"\(new.backingFilename ?? "?")\"") == (new.backingFilename != nil)
            )
            old = new
        }
        try driver.close()
        try expectClean(fixture, hasData: data != nil, "\(item)")
        if item.hasFeatureNames, item.clusterByteCount >= 4096 { #expect(old.featureNames.count == 8, "\(item)") }
    }

    /// Tries sets of sectors of each epoch of calls, and returns the file after all of them.
    private func expectOldOrNew(
        _ old: Content, _ new: Content, _ calls: [RecordingDriver.Call], on base: [UInt8], _ note: String,
        _ generator: inout SeededGenerator
    ) throws -> [UInt8] {
        var flushed = base
        var epoch: [RecordingDriver.Call] = []
        for call in calls + [.flush] {
            guard case .flush = call else {
                epoch += Self.sectors(call)
                continue
            }
            for round in 0..<24 {
                // Each alone, all but each, and some.
                let kept = epoch.enumerated().filter { index, call in
                    if case .resize = call { return true }
                    switch round {
                    case 0..<8: return index == round
                    case 8..<16: return index != round - 8
                    default: return Bool.random(using: &generator)
                    }
                }
                let crashed = try? Content(RecordingDriver.replay(kept.map(\.element), on: flushed))
                guard let crashed else {
                    Issue.record("\(note): the image is none any more")
                    continue
                }
                #expect(crashed.isSame(as: old) || crashed.isSame(as: new), "\(note), round \(round): \(crashed)")
                #expect(
                    [old.featureNames, new.featureNames, []].contains(crashed.featureNames),
                    "\(note): \(crashed.featureNames)")
            }
            flushed = RecordingDriver.replay(epoch, on: flushed)
            epoch = []
        }
        return flushed
    }

    private static func sectors(_ call: RecordingDriver.Call) -> [RecordingDriver.Call] {
        guard case .write(let offset, let bytes) = call else { return [call] }
        var pieces: [RecordingDriver.Call] = []
        var position = 0
        while position < bytes.count {
            let count = min(512 - (Int(offset) + position) % 512, bytes.count - position)
            pieces.append(.write(offset: offset + UInt64(position), bytes: Array(bytes[position..<position + count])))
            position += count
        }
        return pieces
    }

    /// A new image is one when its first sector is written, and has all its names then.
    @Test func anImageIsMadeByItsFirstSector() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        let recorder = RecordingDriver(try PlainFile(path: path, creates: true))
        var options = Qcow2Create.Options(diskByteCount: 1 << 20)
        options.backingFilename = String(repeating: "b", count: 1000)
        options.backingFormat = "raw"
        try Qcow2Create.write(options, into: BlockNode(name: "file", driver: recorder))
        let whole = try Content(RecordingDriver.replay(recorder.calls, on: []))
        var bytes: [UInt8] = []
        var imageCount = 0
        for call in recorder.calls.flatMap(Self.sectors) {
            bytes = RecordingDriver.replay([call], on: bytes)
            guard let content = try? Content(bytes) else { continue }
            imageCount += 1
            #expect(content == whole)
        }
        #expect(imageCount > 0)
    }

    /// Whatever call fails: the old header or the new one is in force, for us as for who opens the image next.
    @Test(arguments: [
        Case(nameByteCount: 30), Case(dataNameByteCount: 900), Case(nameByteCount: 500, foreignByteCount: 900),
    ])
    func aFailedCallLeavesWhatTheDriverSays(item: Case) throws {
        for index in 0... {
            let fixture = try ImageFixture()
            let data = try make(item, fixture)
            let path = fixture.path("a")
            let faulty = FaultyDriver(try PlainFile(path: path))
            let backing = item.nameByteCount > 0 ? BlockNode(name: "base", driver: MemoryFile()) : nil
            let driver = try Qcow2Driver(
                try Qcow2Image.read(BlockNode(name: "file", driver: faulty)), backing: backing, dataFile: data,
                options: .init())
            _ = try driver.loadBitmaps()
            let old = driver.store.names
            faulty.fail(call: index)
            let isRefused =
                try refusal { try driver.setBackingFile(name: String(repeating: "n", count: 600), format: "qcow2") }
                != nil
            let isReached = faulty.callCount > index
            faulty.heal()
            let content = try Content(Files.readAll(path, limit: 1 << 30))
            #expect(driver.store.names.backingFilename == content.backingFilename)
            #expect(isRefused == (content.backingFilename == old.backingFilename), "call \(index)")
            // And it goes on from there.
            try driver.storeBitmaps([bitmap("one")])
            try driver.close()
            try expectClean(fixture, hasData: data != nil, "call \(index)")
            if !isReached { return #expect(index > 1) }
        }
    }
}

extension HeaderCluster {
    /// One more extension, which nobody here knows.
    fileprivate mutating func addForeign(_ data: [UInt8]) throws {
        // Behind the others, before the end marker.
        var bytes = [UInt8](repeating: 0, count: Int(header.headerByteCount)) + extensions.encoded.dropLast(8)
        bytes.appendBigEndian(UInt32(0x1234_5678))
        bytes.appendBigEndian(UInt32(data.count))
        bytes += data
        bytes.pad(toMultipleOf: 8)
        var nameless = header
        nameless.backingNameOffset = 0
        extensions = try HeaderExtensions(cluster: bytes + [UInt8](repeating: 0, count: 8), header: nameless)
    }
}
