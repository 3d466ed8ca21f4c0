import ColdframeKit
import ConformanceKit
import Testing

@testable import VmdkFormat

/// Each rule of the format, broken.
@Suite struct HostileImageTests {
    private static func image(_ type: String) -> [UInt8] {
        guard let folder = try? ToolFolder(),
            let path = try? folder.image(
                of: ToolFolder.mixedDisk(byteCount: 5 << 20, seed: 9), format: "vmdk", options: "subformat=\(type)"),
            let file = try? PlainFile(path: path, isReadOnly: true)
        else { return [] }
        return (try? file.readBytes(0, Int(file.byteCount))) ?? []
    }
    private static let sparse = image("monolithicSparse")
    private static let stream = image("streamOptimized")

    private func expectRefused(_ bytes: [UInt8], _ text: String) throws {
        let refusal = try #require(try refusal { _ = try openImage(bytes) })
        #expect(refusal.contains(text))
    }

    @Test(
        arguments: [
            (0, [0], "no vmdk image"), (4, [9, 0], "version 9"), (77, [2, 0], "compression 2"),
            (77, [1, 0], "without markers"), (12, [0, 0, 0, 0, 0, 0, 0, 0], "are no disk"),
            (12, [0, 0, 0, 0, 0, 0, 0, 255], "are no disk"), (20, [0, 0], "are no disk"), (20, [3, 0], "are no disk"),
            (44, [0, 0, 0, 0], "are no disk"), (44, [1, 2, 0, 0], "are no disk"),
            (28, [0, 0], "no descriptor of its own"),
            (28, [0, 0, 0, 0, 0, 0, 0, 1], "where no file reaches"), (28, [0, 0, 0, 0, 1], "The descriptor"),
            (36, [255, 255, 255], "which cannot be"), (56, [0, 0, 0, 0, 1], "The grain directory"),
            (12, [0, 0, 0, 0, 0, 0, 1, 0], "up to 4194304 are read"),
            (56, [255, 255, 255, 255, 255, 255, 255, 255], "no footer"),
        ] as [(Int, [UInt8], String)])
    func aHeaderThatBreaksARuleIsRefused(offset: Int, patch: [UInt8], text: String) throws {
        var bytes = Self.sparse
        bytes.replaceSubrange(offset..<offset + patch.count, with: patch)
        try expectRefused(bytes, text)
    }

    @Test func aDescriptorThatSaysNothingIsRefused() throws {
        for (word, other, text) in [
            ("createType", "createTape", "neither what it is"), ("monolithicSparse", "monolithicSpares", "of type"),
            ("parentCID=ffffffff", "parentCID=fffffffe", "is not followed"), ("RW ", "R? ", "in 0 parts"),
        ] {
            var bytes = Self.sparse
            guard let place = bytes.firstIndex(of: Array(word.utf8)) else {
                Issue.record("\(word) is not in the image")
                continue
            }
            bytes.replaceSubrange(place..<place + word.utf8.count, with: Array(other.utf8))
            try expectRefused(bytes, text)
        }
    }

    @Test func tablesAndGrainsOutsideTheFileAreErrorsWhenTheyAreRead() throws {
        let directory = Int(Self.sparse.littleEndian(UInt64.self, at: 56)) * 512
        let table = Int(Self.sparse.littleEndian(UInt32.self, at: directory)) * 512
        for place in [directory, table] {
            var bytes = Self.sparse
            bytes.storeLittleEndian(UInt32(0x7FFF_FFFF), at: place)
            let driver = try openImage(bytes)
            #expect(throws: ColdframeError.self) { try driver.readBytes(0, 1) }
        }
    }

    @Test func packedGrainsThatLieAreErrors() throws {
        let directory = Int(Self.stream.littleEndian(UInt64.self, at: 56)) * 512
        let table = Int(Self.stream.littleEndian(UInt32.self, at: directory)) * 512
        let number = try #require((0..<80).first { Self.stream.littleEndian(UInt32.self, at: table + 4 * $0) != 0 })
        let grain = Int(Self.stream.littleEndian(UInt32.self, at: table + 4 * number)) * 512
        for (offset, patch) in [
            (0, [UInt8](repeating: 255, count: 8)), (8, [0, 0, 0, 0]), (8, [255, 255, 255, 255]), (8, [5, 0, 0, 0]),
            (12, [0, 0, 0, 0]),
        ] {
            var bytes = Self.stream
            bytes.replaceSubrange(grain + offset..<grain + offset + patch.count, with: patch)
            let driver = try openImage(bytes)
            #expect(throws: ColdframeError.self) { try driver.readBytes(UInt64(number) * 65536, 65536) }
            #expect(throws: ColdframeError.self) { try driver.readBytes(UInt64(number) * 65536 + 100, 100) }
        }
    }
}

extension [UInt8] {
    fileprivate func firstIndex(of word: [UInt8]) -> Int? {
        indices.dropLast(word.count).first { self[$0..<$0 + word.count].elementsEqual(word) }
    }
}
