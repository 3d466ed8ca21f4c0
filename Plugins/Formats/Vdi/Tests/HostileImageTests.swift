import ColdframeKit
import ConformanceKit
import Testing

@testable import VdiFormat

/// Each rule of the format, broken.
@Suite struct HostileImageTests {
    private static func image() throws -> [UInt8] {
        let image = try SubjectImage(.vdi, byteCount: 8 * 4096, storage: .memory)
        let driver = try image.open()
        try driver.writeBytes(SeededGenerator.bytes(3 * 4096, seed: 1), at: 0)
        try driver.close()
        return try image.contents()["file"]!
    }

    @Test(
        arguments: [
            (64, [1, 2, 3, 4], "no vdi image"), (68, [2, 0, 1, 0], "version 1.2"), (76, [4, 0, 0, 0], "has a parent"),
            (440, [1], "has a parent"), (340, [1, 2, 0, 0], "in each other's way"),
            (340, [0, 0, 0, 0], "in each other's way"), (344, [0, 2, 0, 0], "in each other's way"),
            (344, [0, 0, 0, 0], "in each other's way"), (360, [0, 16, 0, 0], "sectors of 4096"),
            (368, [0, 0, 0, 0, 0, 0, 0, 128], "larger than its 8 blocks"), (376, [0, 0, 0, 0], "blocks of 0 bytes"),
            (376, [1, 16, 0, 0], "blocks of 4097"), (376, [0, 0, 0, 128], "blocks of 2147483648"),
            (380, [1, 0, 0, 0], "1 more for each"), (384, [255, 255, 255, 255], "up to 16777216 are read"),
            (384, [0, 0, 0, 1], "in each other's way"), (384, [7, 0, 0, 0], "larger than its 7 blocks"),
        ] as [(Int, [UInt8], String)])
    func whatBreaksARuleIsRefused(offset: Int, patch: [UInt8], text: String) throws {
        let node = damagedImage(try Self.image(), at: offset, patch)
        let refusal = try #require(try refusal { _ = try VdiImage(node) })
        #expect(refusal.contains(text))
    }

    /// The map claims what the file does not have: nothing is taken for it.
    @Test func aMapThatIsNotThereTakesNoMemory() throws {
        var bytes = try Self.image()
        bytes.storeLittleEndian(UInt32(16 << 20), at: 384)
        bytes.storeLittleEndian(UInt32(512 + (64 << 20)), at: 344)
        let refusal = try #require(try refusal { _ = try VdiImage(damagedImage(bytes, at: 0, [])) })
        #expect(refusal.contains("The block map (67108864 bytes at 512) lies outside the file"))
    }

    /// Reading such an image harms nobody; writing to it would.
    @Test(
        arguments: [
            ([0, 0, 0, 0], "another's or beyond"), ([200, 0, 0, 0], "another's or beyond"),
            ([7, 0, 0, 0], "the file was cut short"),
        ] as [([UInt8], String)])
    func anImageThatMustNotBeWrittenIsOnlyRead(entry: [UInt8], text: String) throws {
        let node = damagedImage(try Self.image(), at: 512 + 4, entry)
        let image = try VdiImage(node)
        let driver = try VdiDriver(image, isReadOnly: true)
        #expect(try driver.readBytes(0, 4096) == Array(Self.image()[1024..<1024 + 4096]))
        let refusal = try #require(try refusal { _ = try VdiDriver(image, isReadOnly: false) })
        #expect(refusal.contains(text))
        if entry[0] == 200 {
            #expect(throws: ColdframeError.self) { try driver.readBytes(4096, 1) }
            guard case .opaque = try driver.extents(at: 4096, byteCount: 1, limit: 1)[0].kind else {
                Issue.record("what lies outside the file can be mapped")
                return
            }
        }
    }
}
