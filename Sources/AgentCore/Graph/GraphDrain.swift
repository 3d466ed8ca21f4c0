import ColdframeKit

/// Keeps nodes still: closes the gates of all who reach them, and of those who come while it lasts.
///
/// Gates belong to the users at the top, since a request that has passed one goes on through all nodes below. So a drain
/// of a node covers its ancestors, and every export, guest and job on any of them.
@AgentActor
final class GraphDrain {
    private var nodes: [GraphNode] = []
    private var gates: [(gate: RequestGate, node: GraphNode)] = []
    /// What holds requests back lets them go while it lasts.
    private var released: [any Delaying] = []

    /// Begins nothing yet.
    init(_ nodes: [GraphNode]) {
        for node in nodes { collect(node) }
    }

    private func collect(_ node: GraphNode) {
        guard !nodes.contains(where: { $0 === node }) else { return }
        nodes.append(node)
        for gate in node.ownGates { gates.append((gate, node)) }
        for parent in node.parents { collect(parent) }
    }

    /// Suspends until nobody is inside. With a deadline on `SystemClock`'s monotonic clock that passes, everything is as
    /// before and the name of the node that somebody was still in is returned.
    func begin(deadlineNanoseconds: UInt64? = nil) async -> String? {
        // All close before any is waited for: what one lets through could wait for another.
        for node in nodes { node.drains.append(self) }
        let closing = gates
        for (gate, _) in closing { gate.close() }
        releaseDelays()
        for (gate, node) in closing {
            guard await gate.untilIdle(deadlineNanoseconds: deadlineNanoseconds) else {
                end()
                return node.name
            }
        }
        return nil
    }

    func end() {
        for driver in released { driver.endRelease() }
        released = []
        for node in nodes { node.drains.removeAll { $0 === self } }
        for (gate, _) in gates { gate.endDrain() }
        nodes = []
        gates = []
    }

    /// Of the nodes and of all below them: a request of a user goes down through those.
    private func releaseDelays() {
        var seen: Set<ObjectIdentifier> = []
        func visit(_ node: GraphNode) {
            guard seen.insert(ObjectIdentifier(node)).inserted else { return }
            if let driver = node.block.driver as? any Delaying {
                driver.beginRelease()
                released.append(driver)
            }
            for child in node.children { child.node.map(visit) }
        }
        for node in nodes { visit(node) }
    }

    /// A user or a parent that has come to one of the nodes: nothing has passed its gates yet.
    func cover(_ gate: RequestGate, of node: GraphNode) {
        gate.close()
        gates.append((gate, node))
    }

    func cover(_ parent: GraphNode) {
        guard !nodes.contains(where: { $0 === parent }) else { return }
        nodes.append(parent)
        parent.drains.append(self)
        for gate in parent.ownGates { cover(gate, of: parent) }
    }

    /// Requests that have come to the gates so far.
    var arrivals: UInt64 { gates.reduce(0) { $0 &+ $1.gate.arrivals } }

    /// The first node that somebody is inside of.
    var busyNodeName: String? { gates.first { $0.gate.inFlightCount > 0 }?.node.name }
}

extension Graph {
    /// Whatever holds requests back lets them go from now on (the agent's end).
    func releaseDelays() {
        for node in nodes { (node.block.driver as? any Delaying)?.beginRelease() }
    }
}

extension GraphNode {
    /// Keeps the node still while `body` runs.
    func drained<T: Sendable>(_ body: @AgentActor () async throws -> T) async rethrows -> T {
        let drain = GraphDrain([self])
        _ = await drain.begin()
        defer { drain.end() }
        return try await body()
    }
}
