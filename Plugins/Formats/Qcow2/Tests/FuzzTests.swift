import ColdframeKit
import ConformanceKit
import LinuxSystem
import Qcow2Fuzzing
import Testing

@testable import Qcow2Format

/// The fuzzer's corpus and seeds, without the fuzzer; the long run is `tools/fuzz`.
@Suite struct FuzzTests {
    private func residentByteCount() throws -> Int {
        let words = String(decoding: try Files.readAll("/proc/self/statm"), as: UTF8.self).split(separator: " ")
        return (Int(words[1]) ?? 0) * 4096
    }

    @Test func whatTheFuzzerFoundIsAnErrorOrWorks() throws {
        let folder =
            #filePath.split(separator: "/").dropLast(5).reduce("") { $0 + "/" + $1 } + "/Tests/Fuzz/corpus/qcow2"
        let before = try residentByteCount()
        let names = try Files.listDirectory(folder)
        #expect(names.count > 10)
        for name in names { Qcow2Fuzz.run(try Files.readAll("\(folder)/\(name)", limit: 1 << 20)) }
        #expect(try residentByteCount() - before < 256 << 20)
    }

    /// Seeds are sound; with any one word of theirs replaced they are an error, or whatever content.
    @Test func seedsWithABadWord() throws {
        for (name, image) in try Qcow2Seeds.all() {
            let file = MemoryFile()
            file.replace(with: image)
            let found = try Qcow2Check.run(
                on: BlockNode(name: "file", driver: file), repair: .nothing, observer: Unobserved())
            #expect(found.corruptionCount == 0 && found.leakCount == 0 && found.checkErrorCount == 0, "\(name)")
            for offset in stride(from: 0, to: min(image.count, 24_576), by: 8 * 23) {
                for word in [UInt64.max, UInt64(offset) << 9 | 1 << 63, 0x8000_0000_0000_0200] {
                    var bad = image
                    withUnsafeBytes(of: word.bigEndian) { bad.replaceSubrange(offset..<offset + 8, with: $0) }
                    Qcow2Fuzz.run(Qcow2Fuzz.Purpose.allCases[(offset / 184) % 6], image: bad)
                }
            }
        }
    }
}
