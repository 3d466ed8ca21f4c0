import ColdframeKit
import Testing

@testable import AgentCore

@Suite("Dirty bits")
struct DirtyBitsTests {
    /// What the bits should be: one flag per granule.
    private struct Model {
        var flags: [Bool]
        let granularity: UInt64
        let size: UInt64
        init(_ size: UInt64, _ granularity: UInt32) {
            self.size = size
            self.granularity = UInt64(granularity)
            flags = Array(repeating: false, count: Int((size + self.granularity - 1) / self.granularity))
        }
        mutating func change(_ offset: UInt64, _ count: UInt64, to value: Bool) {
            for index in flags.indices {
                let start = UInt64(index) * granularity
                if start < offset + count, offset < start + granularity { flags[index] = value }
            }
        }
        var runs: [Range<UInt64>] {
            var runs: [Range<UInt64>] = []
            for index in flags.indices where flags[index] {
                let start = UInt64(index) * granularity
                let end = min(size, start + granularity)
                if let last = runs.last, last.upperBound == start {
                    runs[runs.count - 1] = last.lowerBound..<end
                } else {
                    runs.append(start..<end)
                }
            }
            return runs
        }
    }

    private func runs(_ bits: DirtyBits) -> [Range<UInt64>] {
        var runs: [Range<UInt64>] = []
        var offset: UInt64 = 0
        while let run = bits.nextDirty(from: offset) {
            runs.append(run)
            offset = run.upperBound
        }
        return runs
    }

    @Test(
        "Random sets and clears are those of a plain model, whatever the size",
        arguments: [1, 511, 65536, 1_000_000, 4_194_305])
    func randomChanges(size: UInt64) {
        var generator = SystemRandomNumberGenerator()
        for granularity in [512, 4096, 65536] as [UInt32] {
            var bits = DirtyBits(diskByteCount: size, granularity: granularity)
            var model = Model(size, granularity)
            for _ in 0..<60 {
                let offset = UInt64.random(in: 0..<size, using: &generator)
                let count = UInt64.random(in: 1...(size - offset), using: &generator) / UInt64.random(in: 1...50) + 1
                let value = Bool.random()
                model.change(offset, min(count, size - offset), to: value)
                if value {
                    bits.set(at: offset, byteCount: count)
                } else {
                    bits.clear(at: offset, byteCount: count)
                }
                #expect(bits.setCount == UInt64(model.flags.filter(\.self).count))
                #expect(runs(bits) == model.runs)
            }
            var bytes = [UInt8](repeating: 0, count: bits.storedByteCount)
            bytes.withUnsafeMutableBytes { bits.store(into: $0, from: 0) }
            var copy = DirtyBits(diskByteCount: size, granularity: granularity)
            bytes.withUnsafeBytes { copy.load($0, at: 0) }
            #expect(copy == bits)
        }
    }

    @Test("Ranges outside the disk do nothing, and none overflows")
    func bounds() {
        var bits = DirtyBits(diskByteCount: 1 << 20, granularity: 65536)
        bits.set(at: 1 << 20, byteCount: 10)
        bits.set(at: .max, byteCount: .max)
        bits.set(at: 0, byteCount: 0)
        #expect(bits.setCount == 0)
        bits.set(at: (1 << 20) - 1, byteCount: .max)
        #expect(runs(bits) == [983_040..<1_048_576])
        #expect(bits.nextDirty(from: .max) == nil)
        #expect(bits.nextClean(from: 983_040) == nil)
        #expect(bits.nextDirty(from: 0, limit: 7) == 983_040..<983_047)
    }

    @Test("A union takes bits of any granularity")
    func union() {
        var coarse = DirtyBits(diskByteCount: 1 << 20, granularity: 65536)
        var fine = DirtyBits(diskByteCount: 1 << 20, granularity: 512)
        fine.set(at: 70_000, byteCount: 1)
        coarse.formUnion(fine)
        #expect(runs(coarse) == [65536..<131_072])
        var other = DirtyBits(diskByteCount: 1 << 20, granularity: 512)
        other.formUnion(fine)
        #expect(other == fine)
    }

    @Test("A smaller disk loses the bits behind its end, and does not get them back")
    func resizing() {
        var bits = DirtyBits(diskByteCount: 1 << 20, granularity: 65536)
        bits.set(at: 0, byteCount: .max)
        bits.resize(toDiskByteCount: 100_000)
        #expect(bits.setCount == 2)
        bits.resize(toDiskByteCount: 1 << 20)
        #expect(runs(bits) == [0..<131_072])
    }

    @Test(
        "The digest is SHA-256's",
        arguments: [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ])
    func digest(text: String, expected: String) {
        #expect(SHA256.hexadecimalDigest(of: Array(text.utf8)) == expected)
    }
}
