import ColdframeKit
import QAPI
import QMPWire

/// What `blockdev-reopen` was asked for of one node, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct ReopenRequest {
    let change: Reopening.Change
    var changesBacking: Bool { change.backing != nil }

    init(_ options: BlockdevOptions, graph: Graph) throws {
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
        let backing = try Self.backing(new["backing"], of: node, graph: graph)
        new["backing"] = nil
        if way == .sameDriver {
            try FixedOptions(of: node, current.object).checkUnchanged(by: new)
        } else {
            // QEMU would put another node there, and so looks for it first.
            if let name = new["file"]?.stringValue { _ = try graph.find(nodeOnly: name) }
            try Self.checkUnchanged(new, current.object, of: node, isProtocol: driver is any AccessSwitching)
        }
        change = .init(node: node, options: options, backing: backing)
    }

    private static func backing(
        _ wanted: JSONValue?, of node: GraphNode, graph: Graph
    ) throws -> Reopening.Change.Backing? {
        guard node.block.driver is any Backed else { return nil }
        guard let wanted else {
            if node.backing != nil {
                throw ColdframeError(.invalidArgument, "backing is missing for '\(node.name)'")
            }
            return nil
        }
        if wanted.isNull {
            guard node.backing != nil else { return nil }
            try node.checkBackingMovable()
            return Reopening.Change.Backing.none
        }
        guard let name = wanted.stringValue else {
            // A definition is that of the image that is there.
            guard let child = node.backing, let object = wanted.objectValue, child.isDefined(by: object) else {
                throw ColdframeError(.invalidArgument, "Cannot change the option 'backing'")
            }
            return nil
        }
        let backing = try graph.find(nodeOnly: name)
        guard !backing.reaches(node) else {
            throw ColdframeError(
                .invalidArgument, "Making '\(name)' a backing child of '\(node.name)' would create a cycle")
        }
        guard node.backing !== backing else { return nil }
        if let filter = node.backing, filter.options == nil {
            if filter.filtered?.node === backing { return nil }
            throw ColdframeError(.permission, "Cannot replace implicit backing child of \(node.name)")
        }
        if let job = node.backing?.uses.lazy.compactMap(\.jobType).first {
            throw ColdframeError(
                .busy,
                "Cannot change frozen 'backing' link from '\(node.name)' to '\(node.backing?.name ?? "")': it is in use by block job: \(job)"
            )
        }
        try node.checkBackingMovable()
        return .node(backing)
    }

    /// What a format may change while it is open is all but its children; a protocol changes its access only.
    private static func checkUnchanged(
        _ new: JSONObject, _ current: JSONObject, of node: GraphNode, isProtocol: Bool
    ) throws {
        for (key, value) in new {
            if ["read-only", "auto-read-only", "node-name", "driver"].contains(key) { continue }
            if let child = node.child(key) {
                let isSame =
                    value.stringValue == child.name || value.objectValue.map { child.isDefined(by: $0) } == true
                if !isSame { throw ColdframeError(.invalidArgument, "Cannot change the option '\(key)'") }
            } else if isProtocol, current[key] != value {
                throw ColdframeError(.invalidArgument, "Cannot change the option '\(key)'")
            }
        }
    }
}

extension GraphNode {
    /// The members say nothing that is not so.
    fileprivate func isDefined(by object: JSONObject) -> Bool {
        guard let current = currentOptions?.object else { return false }
        return object.allSatisfy { key, value in
            if ["read-only", "auto-read-only"].contains(key) { return true }
            if let child = child(key) {
                return value.stringValue == child.name || value.objectValue.map { child.isDefined(by: $0) } == true
            }
            return current[key] == value
        }
    }
}
