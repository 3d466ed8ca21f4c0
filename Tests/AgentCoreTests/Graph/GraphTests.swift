import ColdframeKit
import QAPI
import Testing

@testable import AgentCore

@AgentActor
@Suite("Graph")
struct GraphTests {
    private func use(_ holder: String, _ permissions: NodePermissions, shared: NodePermissions) -> NodeUse {
        NodeUse(.holder(holder), role: "root", permissions: permissions, shared: shared)
    }

    @Test("Two users that cannot be together: QEMU's text, from either side")
    func conflict() async throws {
        let world = try await World(disks: 1)
        let node = try world.graph.find(nodeOnly: "d0")
        let writer = use("job 'a'", [.consistentRead, .write], shared: .consistentRead)
        try node.add(writer)
        // What the newest forbids comes first.
        #expect(
            await refusal { try node.add(use("job 'd'", [.consistentRead, .write], shared: .consistentRead)) }
                == "Permission conflict on node 'd0': permissions 'write' are both required by job 'a' (uses node 'd0' as "
                + "'root' child) and unshared by job 'd' (uses node 'd0' as 'root' child).")
        #expect(
            await refusal { try node.add(use("job 'b'", [.write, .resize], shared: .all)) }
                == "Permission conflict on node 'd0': permissions 'write, resize' are both required by job 'b' (uses node "
                + "'d0' as 'root' child) and unshared by job 'a' (uses node 'd0' as 'root' child).")
        #expect(
            await refusal { try node.add(use("job 'c'", .consistentRead, shared: .consistentRead)) }
                == "Permission conflict on node 'd0': permissions 'write' are both required by job 'a' (uses node 'd0' as "
                + "'root' child) and unshared by job 'c' (uses node 'd0' as 'root' child).")
        #expect(node.uses.count == 1)
        node.remove(writer)
        try node.add(use("job 'b'", .write, shared: .all))
    }

    @Test("Names are checked with QEMU's texts")
    func names() async throws {
        let world = try await World(disks: 1)
        #expect(
            await refusal { try await world.graph.add(BlockdevOptions(driver: "fake", branch: FakeBranch())) }
                == "'node-name' must be specified for the root node")
        #expect(await refusal { try await world.add("d0") } == "Duplicate nodes with node-name='d0'")
        #expect(await refusal { try await world.add("1a") } == "Invalid node-name: '1a'")
        #expect(await refusal { try await world.add("#block7") } == "Invalid node-name: '#block7'")
        #expect(await refusal { try await world.add(String(repeating: "a", count: 32)) } == "Node name too long")
    }

    @Test("A node in use is not deleted, with QEMU's texts")
    func removeRefused() async throws {
        let world = try await World(disks: 1)
        try await world.add("top", file: .reference("d0"))
        #expect(
            await refusal { try await world.graph.remove(nodeName: "zz") } == "Failed to find node with node-name='zz'")
        #expect(await refusal { try await world.graph.remove(nodeName: "d0") } == "Block device d0 is in use")
        let top = try world.graph.find(nodeOnly: "top")
        let export = NodeUse(.export("e"), role: "root", permissions: .consistentRead, shared: .all)
        try top.add(export)
        #expect(await refusal { try await world.graph.remove(nodeName: "top") } == "Node top is in use")
        top.remove(export)
        try await world.graph.remove(nodeName: "top")
        try await world.graph.remove(nodeName: "d0")
        #expect(world.graph.nodes.isEmpty)
    }

    @Test("A child that was defined inline goes with its parent, and not by itself")
    func inlineChild() async throws {
        let world = try await World(disks: 0)
        try await world.add(
            "top", file: .definition(.init(driver: "fake", nodeName: "below", branch: FakeBranch())))
        #expect(
            await refusal { try await world.graph.remove(nodeName: "below") }
                == "Node below is not owned by the monitor")
        try await world.graph.remove(nodeName: "top")
        #expect(world.graph.nodes.isEmpty)
        #expect(world.disk("below").now.isClosed)
    }

    @Test("A node whose opening fails leaves neither its children nor their users")
    func failedOpening() async throws {
        let world = try await World(disks: 1)
        let graph = Graph(
            factories: [FakeFactory(), FakeFactory("broken") { _ in throw ColdframeError(.corrupt, "no image") }],
            gate: ImageReferenceGate(allowedFolders: []))
        try await graph.add(.init(driver: "fake", nodeName: "a", branch: FakeBranch()))
        let branch = FakeBranch(
            file: .reference("a"), backing: .definition(.init(driver: "fake", branch: FakeBranch())))
        #expect(
            await refusal { try await graph.add(.init(driver: "broken", nodeName: "b", branch: branch)) } == "no image")
        #expect(graph.nodes.map(\.name) == ["a"])
        #expect(graph.nodes[0].uses.isEmpty)
        try await graph.add(.init(driver: "fake", nodeName: "b", branch: FakeBranch()))
        _ = world
    }

    @Test("A child cannot be deleted while its parent is being opened")
    func removeDuringOpening() async throws {
        var graph: Graph?
        var text: String?
        let slow = FakeFactory("slow") { _ in
            text = await refusal { try await graph?.remove(nodeName: "a") }
        }
        let made = Graph(factories: [FakeFactory(), slow], gate: ImageReferenceGate(allowedFolders: []))
        graph = made
        try await made.add(.init(driver: "fake", nodeName: "a", branch: FakeBranch()))
        try await made.add(.init(driver: "slow", nodeName: "b", branch: FakeBranch(file: .reference("a"))))
        #expect(text == "Block device a is in use")
    }

    @Test("One image is not opened for writing by two parents")
    func twoWriters() async throws {
        let world = try await World(disks: 1)
        try await world.add("a", file: .reference("d0"))
        #expect(
            await refusal { try await world.add("b", file: .reference("d0")) }?
                .hasPrefix("Permission conflict on node 'd0': permissions 'write, resize'") == true)
        #expect(try world.graph.find(nodeOnly: "d0").uses.count == 1)
    }

    @Test("At the end all nodes are closed, parents first, and none comes later")
    func closing() async throws {
        let world = try await World(disks: 1)
        try await world.add("top", file: .reference("d0"))
        #expect(await world.graph.closeAll().isEmpty)
        #expect(world.disk("d0").now.isClosed && world.disk("top").now.isClosed)
        #expect(await refusal { try await world.add("late") } == "The agent is ending")
    }

    @Test("Backing images are inside one another")
    func information() async throws {
        let world = try await World(disks: 1)
        try await world.graph.add(
            .init(driver: "fake", nodeName: "top", branch: FakeBranch(backing: .reference("d0"))))
        let all = try await NodeInformation(graph: world.graph).nodes()
        #expect(all.map(\.nodeName) == ["top", "d0"])
        #expect(all[0].backingFileDepth == 1)
        #expect(all[0].image.backingImage?.value.filename == "/images/d0")
        #expect(all[1].image.backingImage == nil)
    }

    @Test("A backing file's name counts from the image's folder")
    func fullBackingFilename() {
        let full = NodeInformation.fullBackingFilename
        #expect(full("base.img", "/images/top.qcow2") == "/images/base.img")
        #expect(full("/x/base.img", "/images/top.qcow2") == "/x/base.img")
        #expect(full("nbd:unix:/s", "/images/top.qcow2") == "nbd:unix:/s")
        #expect(full("base.img", "top.qcow2") == "base.img")
        #expect(full("base.img", "json:{}") == nil)
    }
}
