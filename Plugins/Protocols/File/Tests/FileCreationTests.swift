import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import FileProtocol

@Suite struct FileCreationTests {
    private func create(_ path: String, size: UInt64, _ preallocation: PreallocMode? = nil) throws {
        try FileCreation(
            BlockdevCreateOptionsFile(filename: path, size: size, preallocation: preallocation, nocow: true)
        ).run()
    }

    @Test func aNewFileHasItsSizeAndTakesNoSpace() throws {
        let image = try TestImage(exists: false)
        try create(image.path, size: 1 << 30)
        #expect(try Files.status(image.path).byteCount == 1 << 30)
        #expect(try Files.status(image.path).allocatedByteCount == 0)
    }

    @Test(arguments: [PreallocMode.falloc, .full])
    func preallocationTakesTheSpace(_ mode: PreallocMode) throws {
        let image = try TestImage(exists: false)
        try create(image.path, size: 3 << 20, mode)
        #expect(try Files.status(image.path).byteCount == 3 << 20)
        #expect(try Files.status(image.path).allocatedByteCount >= 3 << 20)
    }

    @Test func metadataIsNoModeOfAFile() throws {
        let image = try TestImage(exists: false)
        let error = #expect(throws: ColdframeError.self) { try create(image.path, size: 1, .metadata) }
        #expect(error?.message.hasPrefix("Unsupported preallocation mode 'metadata'") == true)
        #expect(!Files.exists(image.path))
    }

    @Test func aFileThatExistsIsEmptied() throws {
        let image = try TestImage()
        try Files.replaceAtomically(image.path, contents: [UInt8](repeating: 7, count: 5000))
        try create(image.path, size: 10)
        #expect(try Files.readAll(image.path) == [UInt8](repeating: 0, count: 10))
    }

    @Test func aFileInUseIsNotTouched() throws {
        let image = try TestImage()
        let reader = try image.open(readOnly: true)
        let error = #expect(throws: ColdframeError.self) { try create(image.path, size: 10) }
        #expect(error?.message.hasPrefix("Failed to get \"write\" lock") == true)
        #expect(try Files.status(image.path).byteCount == 1 << 20)
        try reader.close()
    }

    @Test func aFailureRemovesWhatItMade() throws {
        let image = try TestImage(exists: false)
        SystemCallFaults.inject(onCall: 1, errno: Errno.noSpace, matching: ["fallocate"])
        defer { SystemCallFaults.clear() }
        let error = #expect(throws: ColdframeError.self) { try create(image.path, size: 1 << 20, .falloc) }
        #expect(error?.errno == Errno.noSpace)
        #expect(!Files.exists(image.path))
    }
}
