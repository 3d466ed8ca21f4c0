import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Other options for images that exist; `qemu-img` says what they are afterwards.
@Suite struct AmendTests {
    @Test func everyWidthOfRefcounts() throws {
        let image = try AmendFixture()
        for bits in [64, 2, 32, 4, 8, 16] as [Int64] {
            try image.amend(.init(refcountBits: bits))
            #expect(try image.information().contains("\"refcount-bits\": \(bits)"))
            try image.expectUnchangedContent(nil, "\(bits) bits")
            try image.fixture.expectClean(image.path)
        }
        // A cluster that two snapshots and the disk have needs two bits.
        let before = try Files.readAll(image.path, limit: 1 << 30)
        let error = #expect(throws: ColdframeError.self) { try image.amend(.init(refcountBits: 1)) }
        #expect(error?.message.contains("more than refcounts of 1 bits can hold") == true)
        try image.expectUnchangedContent()
        #expect(try Files.readAll(image.path, limit: 1 << 30).prefix(512) == before.prefix(512))
        let alone = try AmendFixture(hasSnapshots: false)
        try alone.amend(.init(refcountBits: 1))
        try alone.expectUnchangedContent()
    }

    @Test func versionThreeAndBack() throws {
        for nameByteCount in [0, 60, 900] {
            let image = try AmendFixture(version: 2, nameByteCount: nameByteCount)
            try image.amend(.init(version: 3, hasLazyRefcounts: true, refcountBits: 32))
            let information = try image.information()
            for text in ["\"compat\": \"1.1\"", "\"lazy-refcounts\": true", "\"refcount-bits\": 32"] {
                #expect(information.contains(text), "\(information)")
            }
            try image.expectUnchangedContent(nil, "up, name of \(nameByteCount)")
            try image.fixture.expectClean(image.path)
            try image.amend(.init(version: 2, refcountBits: 16))
            #expect(try image.information().contains("\"compat\": \"0.10\""))
            try image.expectUnchangedContent(nil, "down, name of \(nameByteCount)")
            try image.fixture.expectClean(image.path)
        }
    }

    @Test func zeroClustersBecomeWhatVersionTwoHas() throws {
        for nameByteCount in [0, 60] {
            let image = try AmendFixture(nameByteCount: nameByteCount)
            try image.amend(.init(version: 2))
            #expect(try image.information().contains("\"compat\": \"0.10\""))
            try image.expectUnchangedContent()
            try image.fixture.expectClean(image.path)
        }
    }

    @Test func whatVersionTwoHasNotIsRefusedBeforeAnythingChanges() throws {
        func expectRefusal(_ image: AmendFixture, _ request: AmendRequest, _ text: String) throws {
            let before = try Files.readAll(image.path, limit: 1 << 30)
            let error = #expect(throws: ColdframeError.self) { try image.amend(request) }
            #expect(error?.message.contains(text) == true, "\(error?.message ?? "")")
            #expect(try Files.readAll(image.path, limit: 1 << 30) == before)
        }
        let zeros = try AmendFixture(zerosInSnapshots: true)
        try expectRefusal(zeros, .init(version: 2), "snapshot 'one' has clusters that are marked as zeros")
        try expectRefusal(zeros, .init(version: 2, hasLazyRefcounts: true), "Lazy refcounts only supported")
        try expectRefusal(zeros, .init(version: 2, diskByteCount: 1 << 20), "Internal snapshots prevent downgrade")
        try expectRefusal(zeros, .init(refcountBits: 12), "Refcount width must be a power of two")
        try expectRefusal(zeros, .init(refcountBits: -8), "Refcount width must be a power of two")
        try expectRefusal(zeros, .init(dataFilename: "x"), "data-file can only be set")
        try expectRefusal(zeros, .init(isDataFileRaw: true), "data-file-raw cannot be set on existing images")
        try expectRefusal(zeros, .init(diskByteCount: 1000), "multiple of 512")
        try expectRefusal(zeros, .init(backingFilename: "x"), "needs its format")
        try expectRefusal(try AmendFixture { $0.refcountBits = 8 }, .init(version: 2), "Refcount widths other than 16")
        let extended = try AmendFixture(hasSnapshots: false) {
            $0.hasExtendedL2 = true
            $0.clusterByteCount = 16384
        }
        try expectRefusal(extended, .init(version: 2), "incompatible features 0x10")
    }

    @Test func namesOfAnyLengthAreReplaced() throws {
        let image = try AmendFixture(nameByteCount: 60)
        for length in [1000, 300, 1023, 200, 900, 60] {
            let name = AmendFixture.name(of: image.fixture.path("base"), byteCount: length)
            try image.amend(.init(backingFilename: name))
            #expect(try image.information().contains("\"backing-filename\": \"\(name)\""))
            try image.expectUnchangedContent(nil, "name of \(length)")
            // Our own later changes of the header keep it.
            let driver = try openImage(image.path, backing: image.backing)
            _ = try driver.createSnapshot(request("x"))
            try driver.deleteSnapshot(id: try #require(driver.snapshots.last?.id))
            try driver.close()
            #expect(try image.information().contains("\"backing-filename\": \"\(name)\""))
        }
        try image.amend(.init(backingFilename: ""))
        #expect(try image.information().contains("backing") == false)
        #expect(try Qcow2Image.read(try fileNode(image.path)).backingFormat == nil)
        try image.fixture.expectClean(image.path)
    }

    @Test func imagesOfQEMU() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try fixture.run("qemu-img", ["create", "-f", "qcow2", "-o", "compat=0.10", path, "8M"])
        try fixture.run("qemu-io", ["-c", "write -P 7 1M 2M", path])
        try fixture.run("qemu-img", ["snapshot", "-c", "s", path])
        try fixture.run("qemu-io", ["-c", "write -P 8 2M 2M", path])
        let (disk, snapshot) = (try fixture.content(path), try fixture.content(path, snapshot: "s"))
        func amend(_ request: AmendRequest) throws {
            let node = try fileNode(path)
            try Qcow2Amend(AmendedImage(file: node, backing: nil, dataFile: nil), request) { _, _ in }.run()
            try node.driver.close()
            try fixture.expectClean(path)
            #expect(try fixture.content(path).prefix(disk.count) == disk[...])
            // It shows a snapshot in the disk's size.
            #expect(try fixture.content(path, snapshot: "s").prefix(snapshot.count) == snapshot[...])
        }
        try amend(.init(version: 3, refcountBits: 64))
        try amend(.init(diskByteCount: 12 << 20))
        #expect(try fixture.content(path).count == 12 << 20)
        try amend(.init(diskByteCount: 8 << 20))
        try amend(.init(version: 2, refcountBits: 16))
        // And the other way round: what we made of it QEMU amends.
        try fixture.run("qemu-img", ["amend", "-o", "compat=1.1,refcount_bits=8", path])
        try amend(.init(hasLazyRefcounts: true))
    }

    @Test func bitmapsStayWithAnyWidthAndSize() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try fixture.run("qemu-img", ["create", "-f", "qcow2", path, "8M"])
        try fixture.run("qemu-img", ["bitmap", "--add", path, "b"])
        try fixture.run("qemu-io", ["-c", "write 1M 64k", path])
        let node = try fileNode(path)
        let request = AmendRequest(hasLazyRefcounts: true, refcountBits: 32, diskByteCount: 16 << 20)
        try Qcow2Amend(AmendedImage(file: node, backing: nil, dataFile: nil), request) { _, _ in }.run()
        let information = try fixture.run("qemu-img", ["info", "--output=json", path])
        #expect(information.contains("\"name\": \"b\"") && !information.contains("in-use"), "\(information)")
        try fixture.expectClean(path)
        let driver = try openImage(path)
        let bitmap = try #require(try driver.loadBitmaps().first)
        #expect(bitmap.bits.diskByteCount == 16 << 20 && !bitmap.state.isInconsistent)
        #expect(bitmap.bits.setCount > 0)
        try driver.storeBitmaps([bitmap])
        try driver.close()
        let error = #expect(throws: ColdframeError.self) {
            try Qcow2Amend(
                AmendedImage(file: try fileNode(path), backing: nil, dataFile: nil),
                AmendRequest(version: 2, refcountBits: 16)
            ) { _, _ in }.run()
        }
        #expect(error?.message.contains("persistent bitmaps") == true)
    }

    @Test func anAmendmentThatIsEndedChangesNothing() throws {
        let image = try AmendFixture()
        let before = try Files.readAll(image.path, limit: 1 << 30)
        let error = #expect(throws: ColdframeError.self) {
            try image.amend(.init(refcountBits: 64)) { (_, _) throws(ColdframeError) in
                throw ColdframeError(.cancelled, "Operation canceled")
            }
        }
        #expect(error?.code == .cancelled)
        #expect(try Files.readAll(image.path, limit: 1 << 30) == before)
    }
}
