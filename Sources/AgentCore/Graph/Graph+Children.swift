import ColdframeKit

/// Children that come and go while their parent is in use (`x-blockdev-change`), with QEMU's texts.
extension Graph {
    /// Makes a node, which nobody uses, a child of another. A throw changes nothing.
    func addChild(_ child: GraphNode, to parent: GraphNode) async throws {
        guard let driver = parent.block.driver as? any ChildChanging else {
            throw ColdframeError(.unsupported, "The node \(parent.name) does not support adding a child")
        }
        let drain = GraphDrain([parent, child])
        _ = await drain.begin()
        defer { drain.end() }
        guard child.uses.isEmpty else { throw ColdframeError(.busy, "The node \(child.name) already has a parent") }
        let (name, role, taking) = try driver.nextChild()
        guard !child.reaches(parent) else {
            throw ColdframeError(
                .invalidArgument, "Making '\(child.name)' a \(name) child of '\(parent.name)' would create a cycle")
        }
        let mayWrite = role.isWritten && !parent.block.isReadOnly && !child.block.isReadOnly
        let edge = NodeOpening.use(
            .parent(parent), name: name, role: role, mayWrite: mayWrite, handle: BlockNode(child.body)
        ).demanding(NodePermissions(taking), forbidding: [])
        // Before it is one of the children: what is needed of it follows from its place among them.
        if edge.permissions.contains(.write), child.block.isReadOnly {
            throw ColdframeError(.permission, "Block node is read-only")
        }
        parent.children.append(edge)
        let hadChanged = parent.hasChanged
        do {
            try child.check(edge)
            try driver.addChild(edge.handle ?? child.block, name: name)
        } catch {
            parent.children.removeAll { $0 === edge }
            throw error
        }
        child.attach(edge)
        parent.hasChanged = true
        do {
            try FaultPoint.childrenChanged.pass()
            try await recordShape()
        } catch {
            driver.removeChild(named: name)
            detach(edge, from: parent)
            parent.hasChanged = hadChanged
            throw error
        }
        // Too late to fail.
        try? FaultPoint.childrenRecorded.pass()
    }

    /// Takes a child away from its parent. What nobody else has is closed. A throw changes nothing.
    func removeChild(_ edge: NodeUse, from parent: GraphNode) async throws {
        guard let driver = parent.block.driver as? any ChildChanging else {
            throw ColdframeError(.unsupported, "The node \(parent.name) does not support removing a child")
        }
        guard let child = edge.node else { return }
        let drain = GraphDrain([parent])
        _ = await drain.begin()
        let (index, hadChanged) = (parent.children.firstIndex { $0 === edge }, parent.hasChanged)
        do {
            // A mirror may have put another node in its place while requests came to rest.
            guard index != nil else {
                throw ColdframeError(
                    .busy, "Child '\(edge.role)' of '\(parent.name)' is another node by now: look, and try again")
            }
            try driver.checkRemovable(childNamed: edge.role)
            detach(edge, from: parent)
            parent.hasChanged = true
            do {
                try FaultPoint.childrenChanged.pass()
                try await recordShape()
            } catch {
                child.attach(edge)
                parent.children.insert(edge, at: index ?? parent.children.endIndex)
                parent.hasChanged = hadChanged
                throw error
            }
            // Too late to fail: a driver that took the child back would have forgotten what that one has missed.
            try? FaultPoint.childrenRecorded.pass()
            driver.removeChild(named: edge.role)
        } catch {
            drain.end()
            throw error
        }
        drain.end()
        await letGo(child)
    }

    private func detach(_ edge: NodeUse, from parent: GraphNode) {
        parent.children.removeAll { $0 === edge }
        edge.node?.remove(edge)
    }
}
