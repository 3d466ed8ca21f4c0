import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import RawSidecarFormat

/// A raw file that something else changed.
@Suite struct IdentityTests {
    /// An image with a snapshot, closed in order.
    private func closedImage() throws -> SubjectImage {
        let (image, disk) = try SubjectImage.opened(byteCount: 1 << 20)
        try disk.writeBytes([1], at: 0)
        _ = try disk.createSnapshot(request("a"))
        try disk.writeBytes([2], at: 0)
        try disk.close()
        return image
    }

    private func writeBehindItsBack(_ image: SubjectImage) throws {
        let file = try Descriptor.open(image.path("disk.raw"), .readWrite)
        try [UInt8]([7]).withUnsafeBytes { try file.pwriteAll($0, at: 1 << 19) }
        file.close()
    }

    @Test func nothingIsSuspectWhereNobodyWrote() throws {
        let image = try closedImage()
        let disk = try openImage(try image.nodes())
        #expect(try disk.openSnapshot(id: "1").readBytes(0, 1) == [1])
        try disk.close()
    }

    @Test(arguments: [true, false])
    func snapshotsOfAFileThatWasWrittenToAreRefused(isReadOnly: Bool) throws {
        let image = try closedImage()
        try writeBehindItsBack(image)
        let disk = try openImage(try image.nodes(isReadOnly: isReadOnly), isReadOnly: isReadOnly)
        #expect { try disk.openSnapshot(id: "1") } throws: { "\($0)".contains("something else wrote to the raw image") }
        #expect(try disk.readBytes(0, 1) == [2])
        let specific = try #require(try disk.information().formatSpecific)
        #expect(specific.data["suspect-snapshots"] == ["1"])
        try disk.close()
    }

    @Test func theyStaySuspectAndOthersAreNot() throws {
        let image = try closedImage()
        try writeBehindItsBack(image)
        let first = try openImage(try image.nodes())
        #expect(throws: ColdframeError.self) { try first.revert(toSnapshot: "1") }
        _ = try first.createSnapshot(request("b"))
        try first.close()
        let second = try openImage(try image.nodes())
        #expect(throws: ColdframeError.self) { try second.openSnapshot(id: "1") }
        #expect(try second.openSnapshot(id: "2").readBytes(1 << 19, 1) == [7])
        try second.deleteSnapshot(id: "1")
        try second.close()
    }

    @Test func whoInsistsGetsThem() throws {
        let image = try closedImage()
        try writeBehindItsBack(image)
        let disk = try openImage(try image.nodes(), allowsSuspect: true)
        #expect(try disk.openSnapshot(id: "1").readBytes(0, 1) == [1])
        try disk.close()
    }

    @Test func aFileOfAnotherSizeIsNoticed() throws {
        let image = try closedImage()
        let file = try Descriptor.open(image.path("disk.raw"), .readWrite)
        try file.truncate(toByteCount: 2 << 20)
        file.close()
        let disk = try openImage(try image.nodes())
        #expect(throws: ColdframeError.self) { try disk.openSnapshot(id: "1") }
        try disk.close()
    }
}
