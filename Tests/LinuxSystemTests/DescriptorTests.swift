import LinuxSystem
import Testing

@Suite struct DescriptorTests {
    @Test func closeTwiceClosesOnce() throws {
        let file = try Descriptor.memoryFile(name: "t")
        file.close()
        let next = try Descriptor.memoryFile(name: "next")
        file.close()
        _ = try next.status()
    }

    @Test func aReleasedNumberStaysOpen() throws {
        let number = try Descriptor.memoryFile(name: "t").release()
        _ = try Descriptor(owning: number).status()
    }

    @Test func readsAndWritesAtOffsets() throws {
        let file = try Descriptor.memoryFile(name: "t")
        try [UInt8]("hello".utf8).withUnsafeBytes { try file.pwriteAll($0, at: 10) }
        #expect(try file.preadBytes(at: 8, count: 5) == [0, 0] + Array("hel".utf8))
    }

    @Test func aReadIsShortAtTheEndOnly() throws {
        let file = try Descriptor.memoryFile(name: "t")
        try file.truncate(toByteCount: 100)
        #expect(try file.preadBytes(at: 90, count: 50).count == 10)
        #expect(try file.preadBytes(at: 200, count: 50).isEmpty)
    }

    @Test func twoPiecesAreOneWrite() throws {
        let (readEnd, writeEnd) = try pipe()
        try Array("head".utf8).withUnsafeBytes { head in
            try Array("payload".utf8).withUnsafeBytes { try writeEnd.writeAll(head, $0) }
        }
        #expect(try readEnd.readText() == "headpayload")
    }

    @Test func twoPiecesLargerThanThePipe() throws {
        let (readEnd, writeEnd) = try pipe()
        let writer = try SystemThread.start(name: "writer") {
            let head = [UInt8](repeating: 1, count: 200_000)
            let tail = [UInt8](repeating: 2, count: 300_000)
            _ = head.withUnsafeBytes { head in tail.withUnsafeBytes { try? writeEnd.writeAll(head, $0) } }
            writeEnd.close()
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 600_000, alignment: 1)
        defer { buffer.deallocate() }
        #expect(try readEnd.readFull(into: buffer) == 500_000)
        #expect(buffer[199_999] == 1 && buffer[200_000] == 2 && buffer[499_999] == 2)
        writer.join()
    }

    @Test func statusTellsTheKind() throws {
        let directory = try TestDirectory()
        #expect(try Files.status(directory.path).isDirectory)
        let file = try Descriptor.open(directory.file("f"), [.readWrite, .create], mode: 0o640)
        try file.truncate(toByteCount: 12345)
        let status = try file.status()
        #expect(status.isRegularFile && !status.isDirectory)
        #expect(status.byteCount == 12345)
        #expect(status.permissions == 0o640)
        #expect(try Files.status(directory.file("f")).inode == status.inode)
    }

    @Test func exclusiveCreationRefusesAFileThatExists() throws {
        let directory = try TestDirectory()
        _ = try Descriptor.open(directory.file("f"), [.writeOnly, .create, .exclusive])
        #expect(
            systemError { try Descriptor.open(directory.file("f"), [.writeOnly, .create, .exclusive]) }?.errno
                == Errno.exists)
    }

    @Test func holesAreFound() throws {
        let directory = try TestDirectory()
        let file = try Descriptor.open(directory.file("f"), [.readWrite, .create])
        try file.truncate(toByteCount: 1 << 20)
        #expect(try file.seekData(from: 0) == nil)
        try [UInt8](repeating: 1, count: 65536).withUnsafeBytes { try file.pwriteAll($0, at: 524288) }
        #expect(try file.seekData(from: 0) == 524288)
        #expect(try file.seekHole(from: 524288) == 524288 + 65536)
        #expect(try file.seekHole(from: 2 << 20) == nil)
        try file.allocate(mode: .punchHole, offset: 524288, byteCount: 65536)
        #expect(try file.seekData(from: 0) == nil)
    }

    @Test func reservingGrowsTheFileUnlessToldNotTo() throws {
        let directory = try TestDirectory()
        let file = try Descriptor.open(directory.file("f"), [.readWrite, .create])
        try file.allocate(mode: .reserveKeepingSize, offset: 0, byteCount: 4096)
        #expect(try file.status().byteCount == 0)
        #expect(try file.status().allocatedByteCount >= 4096)
        try file.allocate(mode: .reserve, offset: 0, byteCount: 4096)
        #expect(try file.status().byteCount == 4096)
    }

    @Test func aMappingShowsTheFile() throws {
        let file = try Descriptor.memoryFile(name: "t")
        try [UInt8]("mapped".utf8).withUnsafeBytes { try file.pwriteAll($0, at: 0) }
        let mapping = try ReadOnlyMapping(file, byteCount: 6)
        file.close()
        #expect(Array(mapping.bytes) == Array("mapped".utf8))
        #expect(systemError { try ReadOnlyMapping(file, byteCount: 0) }?.errno == Errno.invalid)
    }
}

@Suite struct OFDLocksTests {
    @Test func locksBelongToTheOpenFile() throws {
        let directory = try TestDirectory()
        let one = try Descriptor.open(directory.file("f"), [.readWrite, .create])
        let other = try Descriptor.open(directory.file("f"), .readWrite)
        try one.setOFDLock(.write, offset: 100, byteCount: 1)
        #expect(systemError { try other.setOFDLock(.read, offset: 100, byteCount: 1) }?.errno == Errno.tryAgain)
        #expect(try other.testOFDLock(.read, offset: 100, byteCount: 1) == false)
        #expect(try one.testOFDLock(.write, offset: 100, byteCount: 1), "one's own locks do not count")
        try other.setOFDLock(.write, offset: 101, byteCount: 1)
        one.close()
        #expect(try other.testOFDLock(.write, offset: 100, byteCount: 1))
    }

    @Test func readLocksAreShared() throws {
        let directory = try TestDirectory()
        let one = try Descriptor.open(directory.file("f"), [.readWrite, .create])
        let other = try Descriptor.open(directory.file("f"), .readWrite)
        try one.setOFDLock(.read, offset: 5, byteCount: 1)
        try other.setOFDLock(.read, offset: 5, byteCount: 1)
        #expect(try one.testOFDLock(.write, offset: 5, byteCount: 1) == false)
        try other.setOFDLock(.unlock, offset: 5, byteCount: 1)
        #expect(try one.testOFDLock(.write, offset: 5, byteCount: 1))
    }
}
