import ColdframeKit
import ConformanceKit
import LinuxSystem
import Synchronization
import Testing

@testable import QuorumFilter

/// Whether children are asked at once, and by whom.
@Suite struct QuorumRoundTests {
    /// Waits in each request until so many children are inside.
    private final class Meeting: Sendable {
        private let insideCount = Atomic<Int>(0)
        private let changed = ConditionVariable()
        private let wanted: Int
        /// Requests in which the others did not come.
        let lonelyCount = Atomic<Int>(0)

        init(of wanted: Int) { self.wanted = wanted }

        func above(_ file: MemoryFile) -> HookedDriver {
            HookedDriver(file) { request, _ in
                if [.read, .write, .flush].contains(request) { self.meet() }
            }
        }

        private func meet() {
            let arrivals = insideCount.add(1, ordering: .acquiringAndReleasing).newValue
            changed.broadcast()
            // Who comes next begins another meeting.
            let end = (arrivals + wanted - 1) / wanted * wanted
            let isMet = changed.waitFor(milliseconds: 5000) { self.insideCount.load(ordering: .acquiring) >= end }
            if !isMet { lonelyCount.add(1, ordering: .relaxed) }
        }
    }

    @Test(arguments: ["aa", "aaaaa"]) func slowChildrenAreAskedAtOnce(contents: String) throws {
        let fixture = QuorumFixture(contents, byteCount: 1 << 20)
        let meeting = Meeting(of: contents.count)
        let quorum = try fixture.open(threshold: 2, worthNanoseconds: 0) { meeting.above($1) }
        try quorum.writeBytes([UInt8](repeating: UInt8(ascii: "b"), count: 1 << 20), at: 0)
        // Several pieces, one after the other.
        #expect(QuorumFixture.letter(quorum, 0, 1 << 20) == "b")
        try quorum.flush()
        #expect(meeting.lonelyCount.load(ordering: .relaxed) == 0)
        #expect(fixture.told == [])
    }

    @Test func quickOnesAreAskedByTheThreadThatAsks() throws {
        let fixture = QuorumFixture("aaa")
        let threads = Locked<Set<Int32>>([])
        let quorum = try fixture.open(threshold: 2, worthNanoseconds: .max) {
            HookedDriver($1) { _, _ in threads.withLock { _ = $0.insert(SystemThread.currentID) } }
        }
        for _ in 0..<50 { try quorum.writeBytes([UInt8](repeating: 1, count: 4096), at: 0) }
        #expect(threads.withLock { $0 } == [SystemThread.currentID])
    }

    /// What was seen of them decides.
    @Test func childrenBecomeSlow() throws {
        let fixture = QuorumFixture("aaa")
        let insideCount = Atomic<Int>(0)
        let most = Atomic<Int>(0)
        let pause = Atomic<UInt64>(0)
        let quorum = try fixture.open(threshold: 2) {
            HookedDriver($1) { _, _ in
                let inside = insideCount.add(1, ordering: .acquiringAndReleasing).newValue
                most.store(max(inside, most.load(ordering: .acquiring)), ordering: .releasing)
                SystemThread.sleep(nanoseconds: pause.load(ordering: .relaxed))
                insideCount.subtract(1, ordering: .acquiringAndReleasing)
            }
        }
        func write(_ count: Int) throws {
            for _ in 0..<count { try quorum.writeBytes([UInt8](repeating: 1, count: 4096), at: 0) }
        }
        pause.store(3_000_000, ordering: .relaxed)
        try write(1)
        #expect(most.load(ordering: .acquiring) == 1)
        try write(20)
        #expect(most.load(ordering: .acquiring) > 1)
    }

    /// The quicker way is found again when it has become the other one.
    @Test func thePaceFollowsWhatIsSeen() {
        let pace = QuorumPace(worthNanoseconds: 100)
        func atOnceCount(of rounds: Int, inTurn: UInt64, atOnce: UInt64) -> Int {
            (0..<rounds).count { _ in
                let isAtOnce = pace.asksAtOnce()
                pace.note(isAtOnce ? atOnce : inTurn, atOnce: isAtOnce)
                return isAtOnce
            }
        }
        #expect(atOnceCount(of: 100, inTurn: 90, atOnce: 10) == 0)
        // One that takes long is no rule.
        #expect(atOnceCount(of: 1, inTurn: 1_000_000, atOnce: 10) == 0)
        _ = atOnceCount(of: 100, inTurn: 90, atOnce: 10)
        #expect(atOnceCount(of: 100, inTurn: 90, atOnce: 10) == 0)
        _ = atOnceCount(of: 100, inTurn: 2000, atOnce: 1000)
        #expect(atOnceCount(of: 320, inTurn: 2000, atOnce: 1000) >= 300)
        _ = atOnceCount(of: 1000, inTurn: 2000, atOnce: 5000)
        #expect(atOnceCount(of: 320, inTurn: 2000, atOnce: 5000) <= 10)
        _ = atOnceCount(of: 2000, inTurn: 90, atOnce: 50)
        #expect(atOnceCount(of: 320, inTurn: 90, atOnce: 50) == 0)
    }

    /// More requests than there are threads for: each goes on with its own.
    @Test func nobodyWaitsForAThread() throws {
        let inner = (0..<2).map { _ in QuorumFixture("aa") }
        let quorums = try inner.map { fixture in
            try fixture.open(threshold: 2, worthNanoseconds: 0) {
                HookedDriver($1) { _, _ in SystemThread.sleep(nanoseconds: 200_000) }
            }
        }
        let outer = QuorumDriver(
            children: quorums.enumerated().map {
                QuorumChild(name: "children.\($0)", node: BlockNode(name: "i\($0)", driver: $1))
            },
            settings: quorums[0].settings, isReadOnly: false, reports: quorums[0].reports, worthNanoseconds: 0)
        let failures = Locked<[String]>([])
        let threads = try (0..<60).map { number in
            try SystemThread.start(name: "quorum") {
                do {
                    let bytes = [UInt8](repeating: UInt8(number), count: 64)
                    for _ in 0..<5 { try outer.writeBytes(bytes, at: UInt64(number * 64)) }
                } catch { failures.withLock { $0.append("\(error)") } }
            }
        }
        for thread in threads { thread.join() }
        #expect(failures.withLock { $0 } == [])
        let expected = (0..<60).flatMap { [UInt8](repeating: UInt8($0), count: 64) }
        for file in inner.flatMap(\.files) { #expect(Array(file.bytes[..<expected.count]) == expected) }
    }
}
