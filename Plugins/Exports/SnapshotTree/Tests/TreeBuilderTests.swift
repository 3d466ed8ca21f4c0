import ColdframeKit
import Testing

@testable import SnapshotTreeExport

struct TreeBuilderTests {
    private func set(_ tag: String, id: String = "1", nodes: [String] = ["disk0"], date: UInt32 = 1) -> SnapshotSet {
        SnapshotSet(
            tag: tag, uuid: nil, isMixed: false, isComplete: true,
            members: nodes.map {
                SnapshotSet.Member(
                    nodeName: $0, snapshot: SnapshotInfo(id: id, name: tag, dateSeconds: date, diskByteCount: 1 << 20))
            })
    }

    private let now = TreeDate(seconds: 100, nanoseconds: 0)

    @Test func nothingChangesWhenAHolderComes() {
        var builder = TreeBuilder(agentName: nil)
        var held = set("a")
        let first = builder.build([held], now: now)
        held.holders = ["somebody"]
        #expect(TreeChange(from: first, to: builder.build([held], now: now)).isEmpty)
    }

    @Test func aNewTagIsOneNewEntryOfTheRoot() {
        var builder = TreeBuilder(agentName: nil)
        let first = builder.build([set("a")], now: now)
        let change = TreeChange(from: first, to: builder.build([set("a"), set("b")], now: now))
        #expect(change.removed.isEmpty)
        #expect(change.added.map(\.name) == ["b"])
        #expect(change.changedDirectories == [Tree.rootInode])
    }

    @Test func whatIsGoneIsNamedFromTheLeavesUp() {
        var builder = TreeBuilder(agentName: nil)
        let first = builder.build([set("a")], now: now)
        let change = TreeChange(from: first, to: builder.build([], now: now))
        #expect(change.removed.map(\.name) == ["disk.raw", "disk0", "info.json", "a"])
        #expect(change.changedDirectories == [Tree.rootInode])
    }

    @Test func numbersAreNeverUsedTwice() {
        var builder = TreeBuilder(agentName: nil)
        let first = builder.build([set("a")], now: now)
        _ = builder.build([], now: now)
        let again = builder.build([set("a")], now: now)
        let common = Set(first.nodes.keys).intersection(again.nodes.keys)
        #expect(common == [Tree.rootInode])
    }

    @Test func aNodeThatGoesLeavesTheOthers() {
        var builder = TreeBuilder(agentName: nil)
        let first = builder.build([set("a", nodes: ["disk0", "disk1"])], now: now)
        let change = TreeChange(from: first, to: builder.build([set("a")], now: now))
        #expect(change.removed.map(\.name) == ["disk.raw", "disk1", "info.json"])
        #expect(change.added.map(\.name) == ["info.json"])
    }

    @Test func aSnapshotListedTwiceHasTwoDirectories() {
        var builder = TreeBuilder(agentName: nil)
        let tree = builder.build([set("a", nodes: ["disk0", "disk0"])], now: now)
        let tag = tree.root.children[0]
        #expect(tag.children.map(\.name) == ["disk0", "disk0%~2", "info.json"])
        #expect(Set(tag.children.map(\.inode)).count == 3)
    }

    @Test func nodesMayBeCalledAsOurFiles() {
        var builder = TreeBuilder(agentName: nil)
        let tree = builder.build([set("a", nodes: ["info.json", "vmstate.bin"])], now: now)
        #expect(tree.root.children[0].children.map(\.name) == ["%69nfo.json", "%76mstate.bin", "info.json"])
    }

    @Test func theRootsDateMovesEvenIfTheClockDoesNot() {
        var builder = TreeBuilder(agentName: nil)
        let first = builder.build([], now: now).root.date
        let second = builder.build([], now: TreeDate(seconds: 50, nanoseconds: 0)).root.date
        #expect((second.seconds, second.nanoseconds) > (first.seconds, first.nanoseconds))
    }
}
