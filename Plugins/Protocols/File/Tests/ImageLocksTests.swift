import ColdframeKit
import LinuxSystem
import Testing

@testable import FileProtocol

@Suite struct ImageLocksTests {
    @Test func twoWritersRefuseOneAnother() throws {
        let image = try TestImage()
        let first = try image.open()
        let error = image.failure()
        #expect(error?.message.hasPrefix("Failed to get \"write\" lock") == true)
        #expect(error?.message.contains(image.path) == true)
        try first.close()
        try image.open().close()
    }

    @Test func readersShare() throws {
        let image = try TestImage()
        let first = try image.open(readOnly: true)
        let second = try image.open(readOnly: true)
        try second.close()
        try first.close()
    }

    @Test func aReaderRefusesAWriter() throws {
        let image = try TestImage()
        let reader = try image.open(readOnly: true)
        #expect(image.failure()?.message.hasPrefix("Failed to get \"write\" lock") == true)
        try reader.close()
    }

    @Test func aWriterRefusesAReader() throws {
        let image = try TestImage()
        let writer = try image.open()
        #expect(image.failure(readOnly: true)?.message.hasPrefix("Failed to get shared \"write\" lock") == true)
        try writer.close()
    }

    @Test func forceShareReadsBesideAWriter() throws {
        let image = try TestImage()
        let writer = try image.open()
        try image.open(["force-share": true], readOnly: true).close()
        try writer.close()
    }

    @Test func forceShareIsForReadersOnly() throws {
        let image = try TestImage()
        #expect(
            image.failure(["force-share": true])?.message == "force-share=on can only be used with read-only images")
    }

    @Test func lockingOffTakesNone() throws {
        let image = try TestImage()
        let first = try image.open()
        try image.open(["locking": "off"]).close()
        #expect(image.failure() != nil, "the first one's locks are still there")
        try first.close()
    }

    @Test func aFailedOpenLeavesNoLock() throws {
        let image = try TestImage()
        let reader = try image.open(readOnly: true)
        #expect(image.failure() != nil)
        try image.open(readOnly: true).close()
        try reader.close()
    }

    @Test func closingUnlocksWhateverCopiesThereAre() throws {
        let image = try TestImage()
        let disk = try image.open()
        // What a process that is being started has for a moment.
        let descriptor = try #require((disk as? any ExtentSource)?.descriptor)
        let copy = try ProcessControl.standardStream(descriptor)
        try disk.close()
        try image.open().close()
        copy.close()
    }

    @Test func aFailedLockCallIsReported() throws {
        let image = try TestImage()
        SystemCallFaults.inject(onCall: 2, errno: Errno.io, matching: ["fcntl(F_OFD_SETLK)"])
        defer { SystemCallFaults.clear() }
        #expect(image.failure()?.errno == Errno.io)
    }
}
