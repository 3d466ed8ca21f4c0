import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import FatFilesystem

/// What mkfs.fat makes, of each width and with clusters and sectors of several sizes.
@Suite struct FatFilesystemTests {
    static let volumes: [(variant: String, byteCount: Int, options: [String])] = [
        ("FAT12", 1_474_560, ["-F", "12"]), ("FAT12", 3 << 20, ["-F", "12", "-s", "2", "-r", "64"]),
        ("FAT16", 16 << 20, ["-F", "16", "-n", "A LABEL", "-i", "1234ABCD"]),
        ("FAT16", 20 << 20, ["-F", "16", "-S", "2048", "-s", "1", "-f", "1"]),
        ("FAT32", 40 << 20, ["-F", "32", "-s", "1"]),
    ]

    @Test(arguments: volumes) func whatMtoolsWroteIsRead(
        volume: (variant: String, byteCount: Int, options: [String])
    ) throws {
        let sample = try FilesystemSample(type: "fat", byteCount: volume.byteCount, options: volume.options)
        #expect(sample.files != nil)
        try FilesystemCampaign(FatFactory(), sample).runWhole()
        let filesystem = try FatFilesystem(MemoryVolume(sample.bytes))
        #expect(filesystem.information.variant == volume.variant)
        #expect(filesystem.information.byteCount == UInt64(volume.byteCount))
        if volume.options.contains("-n") {
            #expect(filesystem.information.label == "A LABEL")
            #expect(filesystem.information.identity == "1234-ABCD")
        }
    }

    @Test func damageOfAFat32IsAnErrorAndNeverACrash() throws {
        let sample = try FilesystemSample(type: "fat", byteCount: 34 << 20, options: ["-F", "32", "-s", "1"])
        try FilesystemCampaign(FatFactory(), sample).runFuzz(defaultRuns: 50)
        try FilesystemCampaign(FatFactory(), sample).runFaults(limit: 20)
    }

    @Test func dateCaseAndAttributesAreAsTheyWereWritten() throws {
        let folder = try ToolFolder()
        let image = folder.path("volume")
        try Descriptor.open(image, [.readWrite, .create]).truncate(toByteCount: 1_474_560)
        try folder.require("/usr/sbin/mkfs.fat", image)
        try folder.require("touch", "-d", "2024-02-29 23:59:58 UTC", folder.path("lower.txt"))
        try folder.write([1], to: "GONE.TXT")
        for name in ["lower.txt", "GONE.TXT"] {
            try folder.require("env", "TZ=UTC", "mcopy", "-m", "-i", image, folder.path(name), "::")
        }
        try folder.require("mdel", "-i", image, "::GONE.TXT")
        let filesystem = try FatFilesystem(MemoryVolume(try Files.readAll(image)))
        let file = try #require(try filesystem.lookUp("LOWER.TXT", in: filesystem.root))
        #expect(try filesystem.attributes(of: file).modificationSeconds == 1_709_251_198)
        #expect(try filesystem.list(filesystem.root, from: 0, limit: 10).entries.map(\.name) == ["lower.txt"])
        #expect(try filesystem.lookUp("gone.txt", in: filesystem.root) == nil)
    }
}
