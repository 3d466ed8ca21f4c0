import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import QuorumFilter

/// What a quorum answers, tells and leaves in its children.
@Suite struct QuorumDriverTests {
    /// Contents of the children, threshold, what is read, what is told.
    static let votes: [(String, Int, String, [String])] = [
        ("a", 1, "a", []),
        ("aaa", 3, "a", []),
        ("aab", 2, "a", ["n2 read 0+8"]),
        ("baa", 2, "a", ["n0 read 0+8"]),
        ("aba", 2, "a", ["n1 read 0+8"]),
        ("abc", 2, "5", ["q failed 0+8"]),
        ("aabb", 3, "5", ["q failed 0+8"]),
        ("aab", 3, "5", ["q failed 0+8"]),
        // Among equals the one that came last wins.
        ("ab", 1, "b", ["n0 read 0+8"]),
        ("aabb", 2, "b", ["n1 read 0+8", "n0 read 0+8"]),
        ("abcab", 2, "b", ["n2 read 0+8", "n3 read 0+8", "n0 read 0+8"]),
    ]

    @Test(arguments: votes) func whatMostHoldIsRead(
        contents: String, threshold: Int, result: String, told: [String]
    ) throws {
        let fixture = QuorumFixture(contents)
        let quorum = try fixture.open(threshold: threshold)
        #expect(QuorumFixture.letter(quorum) == result)
        #expect(fixture.told == told)
        #expect(fixture.letters == contents)
    }

    @Test func aDifferenceIsFoundInWhateverPieceItIs() throws {
        let fixture = QuorumFixture("aab", byteCount: 1 << 20)
        var bytes = [UInt8](repeating: UInt8(ascii: "a"), count: 1 << 20)
        bytes[700_000] = 0
        fixture.files[2].replace(with: bytes)
        // Another child differs elsewhere: all three versions have one vote.
        let quorum = try fixture.open(threshold: 2)
        #expect(QuorumFixture.letter(quorum, 100, (1 << 20) - 100) == "a")
        #expect(fixture.told == ["n2 read 0+2048"])
        bytes[700_000] = UInt8(ascii: "a")
        bytes[5] = 0
        fixture.files[0].replace(with: bytes)
        #expect(QuorumFixture.letter(quorum, 0, 1 << 20) == "5")
        #expect(fixture.told == ["q failed 0+2048"])
        // Child 0 was shown first, and is not among the winners.
        fixture.files[2].replace(with: [UInt8](repeating: UInt8(ascii: "a"), count: 1 << 20))
        #expect(QuorumFixture.letter(quorum, 0, 1 << 20) == "a")
        #expect(fixture.told == ["n0 read 0+2048"])
    }

    @Test(arguments: [0, 1, 2]) func aChildThatFailsIsReportedAndOthersRead(index: Int) throws {
        let fixture = QuorumFixture("aaa", byteCount: 1 << 20)
        let fault = Fault(.read, errno: 28)
        let quorum = try fixture.open(threshold: 2) { $0 == index ? fault.above($1) : nil }
        #expect(QuorumFixture.letter(quorum, 512, 1 << 19) == "a")
        #expect(fixture.told == ["n\(index) read 1+1024 No space left on device"])
    }

    @Test func theErrorOfMostIsTheErrorOfAll() throws {
        let fixture = QuorumFixture("aaaa")
        let faults = [Fault(.read, errno: 5), Fault(.read, errno: 28), Fault(.read, errno: 28), Fault(.read, errno: 5)]
        let quorum = try fixture.open(threshold: 1) { faults[$0].above($1) }
        // As many of each: the one that came later.
        #expect(QuorumFixture.letter(quorum) == "28")
        #expect(fixture.told.last == "q failed 0+8")
        faults[1].set([])
        faults[2].set([])
        #expect(QuorumFixture.letter(quorum) == "a")
        faults[1].set([.read])
        #expect(try fixture.open(threshold: 2) { faults[$0].above($1) }.settings.threshold == 2)
    }

    @Test func whatIsCorruptIsRewritten() throws {
        let fixture = QuorumFixture("aabac")
        let quorum = try fixture.open(["rewrite-corrupted": true], threshold: 3)
        #expect(QuorumFixture.letter(quorum, 0, 512) == "a")
        #expect(fixture.told == ["n4 read 0+1", "n2 read 0+1"])
        #expect(fixture.letters == "aaaaa")
        #expect(fixture.files[2].bytes[512] == UInt8(ascii: "b"))
        #expect(QuorumFixture.letter(quorum, 0, 512) == "a")
        #expect(fixture.told == [])
    }

    @Test func aRewriteThatFailsIsNoFailure() throws {
        let fixture = QuorumFixture("aab")
        let fault = Fault(.write)
        let quorum = try fixture.open(["rewrite-corrupted": true], threshold: 2) { $0 == 2 ? fault.above($1) : nil }
        #expect(QuorumFixture.letter(quorum) == "a")
        #expect(fixture.letters == "aab")
    }

    // MARK: Writes

    @Test func aWriteSucceedsIfEnoughTakeIt() throws {
        let fixture = QuorumFixture("aaa")
        let faults = [Fault(.write, .writeZeroes), Fault()]
        let quorum = try fixture.open(threshold: 2) { $0 < 2 ? faults[$0].above($1) : nil }
        try quorum.writeBytes([UInt8](repeating: UInt8(ascii: "b"), count: 4096), at: 0)
        #expect(fixture.told == ["n0 write 0+8 Input/output error"])
        #expect(fixture.letters == "abb")
        try quorum.writeZeroes(at: 512, byteCount: 512, flags: [.mayUnmap])
        #expect(fixture.told == ["n0 write 1+1 Input/output error"])
        faults[1].set([.write])
        #expect(throws: ColdframeError.self) { try quorum.writeBytes([1], at: 1024) }
        #expect(
            fixture.told == ["n0 write 2+1 Input/output error", "n1 write 2+1 Input/output error", "q failed 2+1"])
    }

    @Test func aFlushSucceedsIfEnoughTakeIt() throws {
        let fixture = QuorumFixture("aaa")
        let faults = [Fault(.flush), Fault()]
        let quorum = try fixture.open(threshold: 2) { $0 < 2 ? faults[$0].above($1) : nil }
        try quorum.flush()
        #expect(fixture.told == ["n0 flush 0+0 Input/output error"])
        faults[1].set([.flush])
        #expect(throws: ColdframeError.self) { try quorum.flush() }
    }

    /// What a child has missed is not read from it, though it would win or come first.
    @Test(arguments: [false, true]) func aMissedWriteIsNotUndone(isFirst: Bool) throws {
        let fixture = QuorumFixture("aa", byteCount: 1 << 20)
        let fault = Fault(.write)
        let missing = isFirst ? 0 : 1
        let quorum = try fixture.open(isFirst ? ["read-pattern": "fifo"] : [:], threshold: 1) {
            $0 == missing ? fault.above($1) : nil
        }
        try quorum.writeBytes([UInt8](repeating: UInt8(ascii: "b"), count: 4096), at: 0)
        #expect(QuorumFixture.letter(quorum) == "b")
        #expect(QuorumFixture.letter(quorum, 1 << 17) == "a")
        // A whole cluster that is written is there again.
        fault.set([])
        try quorum.writeBytes([UInt8](repeating: UInt8(ascii: "c"), count: 65536), at: 0)
        #expect(quorum.children.allSatisfy { !$0.hasMissed(0..<1 << 20) })
        #expect(QuorumFixture.letter(quorum) == "c" && fixture.letters == "cc")
    }

    @Test func nobodyIsAskedWhoIsBehind() throws {
        let fixture = QuorumFixture("aa")
        let faults = [Fault(.write), Fault()]
        let quorum = try fixture.open(["read-pattern": "fifo"], threshold: 1) { faults[$0].above($1) }
        try quorum.writeBytes([1], at: 0)
        faults[1].set([.read])
        _ = fixture.told
        #expect(QuorumFixture.letter(quorum) == "5")
        #expect(fixture.told == ["n1 read 0+8 Input/output error"])
    }

    @Test func theFirstThatCanBeReadIsRead() throws {
        let fixture = QuorumFixture("abc")
        let faults = [Fault(.read), Fault()]
        let quorum = try fixture.open(["read-pattern": "fifo"], threshold: 3) { $0 < 2 ? faults[$0].above($1) : nil }
        #expect(QuorumFixture.letter(quorum) == "b")
        #expect(fixture.told == ["n0 read 0+8 Input/output error"])
        faults[1].set([.read])
        #expect(QuorumFixture.letter(quorum) == "c")
    }

    @Test func childrenGrowByAVote() throws {
        let fixture = QuorumFixture("aaa")
        let faults = [Fault(.resize, errno: 28), Fault(), Fault()]
        let quorum = try fixture.open(threshold: 2) { faults[$0].above($1) }
        try quorum.grow(toByteCount: 8192)
        #expect(quorum.byteCount == 8192 && fixture.files.map(\.byteCount) == [4096, 8192, 8192])
        #expect(fixture.told == ["n0 write 8+8 No space left on device"])
        try quorum.writeBytes([UInt8](repeating: UInt8(ascii: "b"), count: 4096), at: 4096)
        #expect(fixture.told == ["n0 write 8+8 Input/output error"])
        #expect(QuorumFixture.letter(quorum, 4096) == "b")
        // What the one that was too short has missed it has missed, though it grows.
        faults[0].set([])
        try quorum.grow(toByteCount: 12288)
        #expect(quorum.children[0].hasMissed(4096..<8192))
        // Too few can: nobody has.
        faults[1].set([.resize])
        faults[2].set([.resize])
        #expect(throws: ColdframeError.self) { try quorum.grow(toByteCount: 16384) }
        #expect(quorum.byteCount == 12288 && fixture.files.map(\.byteCount) == [12288, 12288, 12288])
    }

    @Test func aZeroIsWhatAllCallZero() throws {
        let fixture = QuorumFixture("aa")
        let quorum = try fixture.open(threshold: 1) { HookedDriver($1, zeroes: $0 == 0 ? 0..<1024 : 512..<4096) }
        let extents = try quorum.extents(at: 0, byteCount: 4096, limit: 9)
        #expect(extents.map { [$0.offset, $0.byteCount] } == [[0, 512], [512, 512], [1024, 3072]])
        let fault = Fault(.extents)
        let failing = try fixture.open(threshold: 1) { $0 == 1 ? fault.above($1) : nil }
        #expect(try failing.extents(at: 512, byteCount: 1024, limit: 9).map(\.kind) == [.opaque])
        #expect(fixture.told == ["n1 read 1+2 Input/output error"])
    }

    @Test func optionsAreChecked() {
        let options: [(Int, JSONObject, Int, String)] = [
            (0, [:], 1, "Number of provided children must be 1 or more"),
            (1, [:], 0, "Parameter 'vote-threshold' expects a value >= 1"),
            (1, [:], 2, "threshold may not exceed children count"),
            (
                3, ["blkverify": true], 2,
                "blkverify=on can only be set if there are exactly two files and vote-threshold is 2"
            ),
            (
                2, ["blkverify": true, "rewrite-corrupted": true], 2,
                "rewrite-corrupted=on cannot be used with blkverify=on"
            ),
        ]
        for (count, members, threshold, text) in options {
            let fixture = QuorumFixture(String(repeating: "a", count: count))
            do {
                _ = try fixture.open(members, threshold: threshold)
                Issue.record("\(text): not refused")
            } catch { #expect("\(error)" == text) }
        }
    }
}
