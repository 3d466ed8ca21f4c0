import ColdframeKit
import QAPI
import QMPWire

/// What `blockdev-reopen` was asked for of one node, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct ReopenRequest {
    let change: Reopening.Change

    /// - Parameter namesBacking: the image names a backing file.
    init(_ options: BlockdevOptions, namesBacking: (GraphNode) -> Bool, graph: Graph) throws {
        guard let name = options.nodeName else { throw ColdframeError(.invalidArgument, "node-name not specified") }
        guard let node = graph.find(nodeName: name) else {
            throw ColdframeError(.notFound, "Failed to find node with node-name='\(name)'")
        }
        guard let current = node.currentOptions, current.driver == options.driver else {
            throw ColdframeError(.invalidArgument, "Cannot change the option 'driver'")
        }
        let driver = node.block.driver
        let way = try graph.factory(for: options.driver).reopening
        guard driver is any AccessSwitching || way != .refused else {
            throw ColdframeError(
                .unsupported,
                "Block format '\(driver.driverName)' used by node '\(name)' does not support reopening files")
        }
        var new = options.object
        var change = Reopening.Change(node: node, options: options)
        if driver is any Backed {
            if let wanted = new["backing"] {
                change.backing = try Self.backing(wanted, of: node, graph: graph)
            } else if node.backing != nil || namesBacking(node) {
                throw ColdframeError(.invalidArgument, "backing is missing for '\(name)'")
            }
        }
        new["backing"] = nil
        if way == .sameDriver {
            try FixedOptions(of: node, current.object).checkUnchanged(by: new)
        } else {
            if let wanted = new["file"]?.stringValue {
                change.file = try Self.child("file", wanted, of: node, graph: graph)
                new["file"] = nil
            }
            try node.checkUnchanged(new, current.object, isProtocol: driver is any AccessSwitching)
        }
        self.change = change
    }

    private static func backing(
        _ wanted: JSONValue, of node: GraphNode, graph: Graph
    ) throws -> Reopening.Change.Backing? {
        if wanted.isNull {
            guard node.backing != nil else { return nil }
            try node.checkChangeable("backing")
            return Reopening.Change.Backing.none
        }
        if let name = wanted.stringValue {
            return try child("backing", name, of: node, graph: graph).map { .node($0) }
        }
        // A definition is that of the image that is there.
        guard let child = node.backing, let object = wanted.objectValue, child.isDefined(by: object) else {
            throw ColdframeError(.invalidArgument, "Cannot change the option 'backing'")
        }
        return nil
    }

    /// The node that is to be a child instead of the one that is; nil if it is that already.
    private static func child(_ role: String, _ name: String, of node: GraphNode, graph: Graph) throws -> GraphNode? {
        let wanted = try graph.find(nodeOnly: name)
        guard !wanted.reaches(node) else {
            throw ColdframeError(
                .invalidArgument, "Making '\(name)' a \(role) child of '\(node.name)' would create a cycle")
        }
        let child = node.child(role)
        // Or it is shown by a job's filter.
        if child === wanted || child?.options == nil && child?.filtered?.node === wanted { return nil }
        try node.checkChangeable(role)
        return wanted
    }
}

extension GraphNode {
    /// Throws, with QEMU's text, if a child cannot be changed for another.
    fileprivate func checkChangeable(_ role: String) throws {
        guard let edge = children.first(where: { $0.role == role }), let child = edge.node else { return }
        if child.options == nil {
            throw ColdframeError(.permission, "Cannot replace implicit \(role) child of \(name)")
        }
        if edge === backingUse || isFilter, let job = child.uses.lazy.compactMap(\.jobType).first {
            throw ColdframeError(
                .busy,
                "Cannot change frozen '\(role)' link from '\(name)' to '\(child.name)': it is in use by block job: \(job)"
            )
        }
        try checkMovable(edge)
    }

    /// What a format may change while it is open is all but its children; a protocol changes its access only.
    fileprivate func checkUnchanged(_ new: JSONObject, _ current: JSONObject, isProtocol: Bool) throws {
        for (key, value) in new {
            if ["read-only", "auto-read-only", "node-name", "driver"].contains(key) { continue }
            if let child = child(key) {
                guard let object = value.objectValue else {
                    guard value.stringValue == child.name else { throw Self.fixed(key) }
                    continue
                }
                // It has options of its own: it was not defined inside this one.
                guard !child.isMonitorOwned else { throw Self.fixed("\(key).driver") }
                if let other = child.change(in: object) { throw Self.fixed(other) }
            } else if isProtocol, current[key] != value {
                throw Self.fixed(key)
            }
        }
    }

    private static func fixed(_ option: String) -> ColdframeError {
        ColdframeError(.invalidArgument, "Cannot change the option '\(option)'")
    }

    /// The members say nothing that is not so.
    fileprivate func isDefined(by object: JSONObject) -> Bool { change(in: object) == nil }

    /// The first member that says what is not so.
    private func change(in object: JSONObject) -> String? {
        guard let current = currentOptions?.object else { return "driver" }
        return object.first { key, value in
            if ["read-only", "auto-read-only"].contains(key) { return false }
            if let child = child(key) {
                return value.stringValue != child.name && value.objectValue.map { child.isDefined(by: $0) } != true
            }
            return current[key] != value
        }?.0
    }
}
