import ColdframeKit
import QAPI
import Testing

@testable import AgentCore

/// Filters that jobs put under users who are there already.
@AgentActor
@Suite("Graph: filters of jobs")
struct FilterTests {
    private func insert(_ world: World, above node: GraphNode, name: String = "f") throws -> GraphNode {
        try world.graph.insertFilter(.init(name: name, role: "backing"), above: node) { source, _ in
            MirrorTopDriver("mirror_top", source: source, blocking: nil)
        }
    }

    private func export(_ node: GraphNode, _ permissions: NodePermissions = .consistentRead) throws -> NodeUse {
        let use = NodeUse(
            .export("e"), role: "root", permissions: permissions, shared: .all, handle: BlockNode(node.body))
        try node.add(use)
        return use
    }

    @Test("A user's view shows the filter while it is there, and the node again afterwards")
    func viewFollows() async throws {
        let world = try await World(disks: 1)
        let node = try world.graph.find(nodeOnly: "d0")
        let use = try export(node)
        let filter = try await node.drained { try insert(world, above: node) }
        #expect(use.node === filter && use.handle?.name == "f")
        #expect(node.parents.first === filter)
        await filter.drained { await world.graph.removeFilter(filter) }
        #expect(use.node === node && use.handle?.name == "d0")
        #expect(world.graph.nodes.map(\.name) == ["d0"])
        #expect(node.uses.count == 1)
    }

    @Test("A drain holds users back who come while it lasts, on the node and above")
    func lateUsers() async throws {
        let world = try await World(disks: 1)
        let node = try world.graph.find(nodeOnly: "d0")
        let drain = GraphDrain([node])
        _ = await drain.begin()
        let early = try export(node)
        let filter = try insert(world, above: node)
        let late = try export(filter)
        for use in [early, late] { #expect(use.handle?.gate.isClosed == true) }
        #expect(filter.block.gate.isClosed)
        drain.end()
        for use in [early, late] { #expect(use.handle?.gate.isClosed == false) }
        #expect(!filter.block.gate.isClosed && node.drains.isEmpty && filter.drains.isEmpty)
    }

    @Test("A job is in the way of those who come through another's filter, but not of those who come through its own")
    func jobsBelowFilters() async throws {
        let world = try await World(disks: 1)
        let node = try world.graph.find(nodeOnly: "d0")
        let filter = try await node.drained { try insert(world, above: node) }
        let other = try await node.drained { try insert(world, above: node, name: "g") }
        func job(_ filter: GraphNode?) -> NodeUse {
            NodeUse(
                .jobTarget("mirror"), role: "target", permissions: .write, shared: [.consistentRead, .writeUnchanged],
                filter: filter)
        }
        let disk = NodeUse(
            .export("e"), role: "root", permissions: [.consistentRead, .write], shared: .consistentRead,
            handle: BlockNode(filter.body))
        try filter.add(disk)
        #expect(other.reaches(node) && filter.reaches(other))
        #expect(throws: ColdframeError.self) { try node.add(job(nil)) }
        let mine = job(filter)
        try node.add(mine)
        filter.remove(disk)
        // Who comes later, too.
        try filter.add(disk)
        filter.remove(disk)
        node.remove(mine)
        let stranger = job(nil)
        try node.add(stranger)
        #expect(throws: ColdframeError.self) { try filter.add(disk) }
        node.remove(stranger)
    }

    @Test("What a filter's users need of it, it needs of its node")
    func permissionsPassThrough() async throws {
        let world = try await World(disks: 1)
        let node = try world.graph.find(nodeOnly: "d0")
        let reader = NodeUse(.holder("a reader"), role: "root", permissions: .consistentRead, shared: .consistentRead)
        let filter = try await node.drained { try insert(world, above: node) }
        try node.add(reader)
        await #expect(refusal { _ = try export(filter, .write) }?.hasPrefix("Permission conflict on node 'd0'") == true)
        node.remove(reader)
        _ = try export(filter, .write)
        await #expect(refusal { try node.add(reader) }?.hasPrefix("Permission conflict on node 'd0'") == true)
    }

    @Test("A filter that cannot be put in leaves everything as it was")
    func failedInsertion() async throws {
        let world = try await World(disks: 2)
        let node = try world.graph.find(nodeOnly: "d0")
        let use = try export(node)
        for name in ["d1", "1"] {
            #expect(await refusal { _ = try await node.drained { try insert(world, above: node, name: name) } } != nil)
        }
        #expect(use.node === node && node.uses.count == 1 && world.graph.nodes.count == 2)
        _ = try await node.drained { try insert(world, above: node) }
    }
}
