import ColdframeKit
import LinuxSystem
import QMPWire
import Testing

@testable import FileProtocol

@Suite struct FileDriverTests {
    @Test(arguments: [["cache": ["direct": true]], [:]] as [JSONObject])
    func readsBackWhatWasWritten(_ options: JSONObject) throws {
        let image = try TestImage()
        let disk = try image.open(options)
        var expected = [UInt8](repeating: 0, count: 1 << 20)
        var seed: UInt64 = 7
        for round in 0..<200 {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let offset = Int(seed >> 33) % ((1 << 20) - 9000)
            let count = Int(seed >> 20) % 9000
            let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: round + 1), count: count)
            try disk.put(bytes, at: UInt64(offset))
            expected.replaceSubrange(offset..<offset + count, with: bytes)
        }
        #expect(try disk.bytes(at: 0, count: 1 << 20) == expected)
        #expect(try disk.bytes(at: 77777, count: 12345) == Array(expected[77777..<77777 + 12345]))
        try disk.close()
        #expect(try Files.readAll(image.path) == expected)
    }

    @Test(arguments: [["cache": ["direct": true]], [:]] as [JSONObject])
    func aWriteBehindTheEndGrowsTheFileByteForByte(_ options: JSONObject) throws {
        let image = try TestImage(byteCount: 1000)
        let disk = try image.open(options)
        try disk.put([1, 2, 3], at: 5001)
        #expect(disk.byteCount == 5004)
        #expect(try Files.status(image.path).byteCount == 5004)
        #expect(try disk.bytes(at: 4999, count: 5) == [0, 0, 1, 2, 3])
        try disk.close()
    }

    @Test func directWritersInOneBlockDoNotLoseOneAnother() throws {
        let image = try TestImage()
        let disk = try image.open(["cache": ["direct": true]])
        let threads = try (0..<4).map { part in
            try SystemThread.start(name: "writer") {
                for index in 0..<100 {
                    try? disk.put([UInt8(part + 1)], at: UInt64(index * 4 + part))
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(try disk.bytes(at: 0, count: 400) == (0..<100).flatMap { _ in [1, 2, 3, 4] as [UInt8] })
        try disk.close()
    }

    @Test func behindTheEndAreZeros() throws {
        let image = try TestImage(byteCount: 100)
        let disk = try image.open()
        try Descriptor.open(image.path, .readWrite).truncate(toByteCount: 50)
        #expect(try disk.bytes(at: 40, count: 60) == [UInt8](repeating: 0, count: 60))
        try disk.close()
    }

    @Test func aReadOnlyFileIsOpenedOnlyAsOne() throws {
        let image = try TestImage()
        let disk = try image.open(readOnly: true)
        #expect(disk.isReadOnly)
        try disk.flush()
        try disk.close()
    }

    @Test func autoReadOnlyOpensWhatCannotBeWritten() throws {
        let image = try TestImage()
        SystemCallFaults.inject(onCall: 1, errno: Errno.accessDenied, matching: ["open"])
        defer { SystemCallFaults.clear() }
        let disk = try image.open(autoReadOnly: true)
        #expect(disk.isReadOnly)
        try disk.close()
    }

    @Test func aMissingFile() throws {
        let image = try TestImage(exists: false)
        #expect(image.failure()?.message == "Could not open '\(image.path)': No such file or directory")
        #expect(image.failure()?.errno == Errno.noEntry)
    }

    @Test func otherKindsOfFilesAreRefused() throws {
        let image = try TestImage(exists: false)
        try Files.mkdir(image.path)
        #expect(image.failure()?.message == "Could not open '\(image.path)': Is a directory")
        #expect(
            image.failure(readOnly: true)?.message == "'file' driver requires '\(image.path)' to be a regular file")
        let socket = image.directory + "/s"
        let listener = try UnixSocket.listen(path: socket)
        #expect(
            image.failure(["filename": .string(socket)])?.message
                == "'file' driver requires '\(socket)' to be a regular file")
        listener.close()
    }

    @Test func nativeAioWantsDirect() throws {
        #expect(try TestImage().failure(["aio": "native"])?.message.hasPrefix("aio=native was specified") == true)
    }

    @Test func aFailedFlushStaysFailed() throws {
        let disk = try TestImage().open()
        SystemCallFaults.inject(onCall: 1, errno: Errno.io, matching: ["fdatasync"])
        defer { SystemCallFaults.clear() }
        #expect(throws: ColdframeError.self) { try disk.flush() }
        #expect(throws: ColdframeError.self, "the kernel reports the loss once only") { try disk.flush() }
    }

    @Test func noFlushDropsThem() throws {
        let disk = try TestImage().open(["cache": ["no-flush": true]])
        SystemCallFaults.inject(onCall: 0, errno: 0, matching: ["fdatasync"])
        defer { SystemCallFaults.clear() }
        try disk.put([1], at: 0, flags: .forceUnitAccess)
        try disk.flush()
        #expect(SystemCallFaults.callCount == 0)
    }

    @Test func forcedUnitAccessFlushes() throws {
        let disk = try TestImage().open()
        SystemCallFaults.inject(onCall: 0, errno: 0, matching: ["fdatasync"])
        defer { SystemCallFaults.clear() }
        try disk.put([1], at: 0, flags: .forceUnitAccess)
        #expect(SystemCallFaults.callCount == 1)
    }

    @Test func aFullDiskIsReported() throws {
        let disk = try TestImage().open()
        SystemCallFaults.inject(onCall: 1, errno: Errno.noSpace, matching: ["pwrite"])
        defer { SystemCallFaults.clear() }
        let error = #expect(throws: ColdframeError.self) { try disk.put([1], at: 0) }
        #expect(error?.errno == Errno.noSpace)
    }

    @Test func resizeChangesTheFile() throws {
        let image = try TestImage()
        let disk = try image.open()
        try (disk as? any Resizable)?.resize(toByteCount: 4097)
        #expect(disk.byteCount == 4097)
        #expect(try Files.status(image.path).byteCount == 4097)
        try disk.close()
    }

    @Test func itsIdentityIsTheFiles() throws {
        let image = try TestImage()
        let disk = try image.open()
        let file = try Descriptor.open(image.path, .readOnly)
        let status = try file.status()
        #expect(
            (disk as? any FileBacked)?.fileIdentity
                == FileIdentity(
                    device: status.device, inode: status.inode, path: image.path,
                    birthNanoseconds: try file.birthNanoseconds()))
        try disk.close()
    }

    @Test func anImpossibleRangeIsAnError() throws {
        let disk = try TestImage().open()
        #expect(throws: ColdframeError.self) { try disk.put([1], at: .max) }
        #expect(throws: ColdframeError.self) { try disk.writeZeroes(at: 1, byteCount: .max, flags: []) }
        #expect(throws: ColdframeError.self) { try disk.extents(at: 1 << 63, byteCount: 1, limit: 1) }
        try disk.close()
    }
}
