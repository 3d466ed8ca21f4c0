import ColdframeKit
import ConformanceKit
import Testing

@testable import QuorumFilter

/// Children that come and go.
@Suite struct QuorumChangesTests {
    @Test func childrenComeAndGo() throws {
        let fixture = QuorumFixture("aaab")
        let quorum = try fixture.open(threshold: 3)
        func refusal(_ body: () throws -> Void) -> String {
            do { try body() } catch { return "\(error)" }
            return "none"
        }
        quorum.removeChild(named: "children.1")
        #expect(
            refusal { try quorum.checkRemovable(childNamed: "children.0") }
                == "The number of children cannot be lower than the vote threshold 3")
        #expect(QuorumFixture.letter(quorum) == "5")
        #expect(try quorum.nextChild().name == "children.4")
        let small = MemoryFile()
        small.replace(with: [1])
        #expect(
            refusal { try quorum.addChild(BlockNode(name: "small", driver: small), name: "children.4") }
                == "Node 'small' has 1 bytes, quorum 'q' 4096: children must be of one size")
        try quorum.addChild(BlockNode(name: "n1", driver: fixture.files[1]), name: "children.4")
        #expect(QuorumFixture.letter(quorum) == "a")
        quorum.removeChild(named: "children.4")
        #expect(try quorum.nextChild().name == "children.4")
    }

    @Test func aChildInWhosePlaceAnotherCameHasMissedNothing() throws {
        let fixture = QuorumFixture("aa")
        let fault = Fault(.write)
        let quorum = try fixture.open(threshold: 1) { $0 == 1 ? fault.above($1) : nil }
        try quorum.writeBytes([1], at: 0)
        #expect(quorum.children[1].hasMissed(0..<1))
        quorum.childBecameWhole(named: "children.1")
        #expect(!quorum.children[1].hasMissed(0..<4096))
    }
}
