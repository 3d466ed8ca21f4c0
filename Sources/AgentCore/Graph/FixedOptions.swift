import ColdframeKit
import QMPWire

/// The options of a node whose driver takes no others while it is open: each must be given again as it was, one by one, with
/// QEMU's texts.
@AgentActor
struct FixedOptions {
    private let node: GraphNode
    private let current: [(name: String, value: JSONValue)]
    /// What the graph does for any node, whatever its driver.
    private static let common: Set = [
        "node-name", "discard", "cache.direct", "cache.no-flush", "read-only", "auto-read-only", "detect-zeroes",
    ]

    init(of node: GraphNode, _ current: JSONObject) {
        self.node = node
        self.current = Self.flattened(.object(current))
    }

    func checkUnchanged(by new: JSONObject) throws {
        let new = Self.flattened(.object(new))
        for (name, _) in current where !Self.common.contains(name) && !new.contains(where: { $0.name == name }) {
            throw ColdframeError(.invalidArgument, "Option '\(name)' cannot be reset to its default value")
        }
        for (name, value) in new where !Self.common.contains(name) {
            if let child = node.child(name), value.stringValue == child.name { continue }
            guard current.first(where: { $0.name == name })?.value == value else {
                throw ColdframeError(.invalidArgument, "Cannot change the option '\(name)'")
            }
        }
    }

    /// Each member under its whole name, as `image.driver` or `inject-error.0.event`.
    private static func flattened(_ value: JSONValue, as name: String? = nil) -> [(name: String, value: JSONValue)] {
        func inside(_ key: String) -> String { name.map { "\($0).\(key)" } ?? key }
        if let object = value.objectValue {
            return object.flatMap { key, value in flattened(value, as: inside(key)) }
        }
        if let array = value.arrayValue {
            return array.enumerated().flatMap { flattened($1, as: inside("\($0)")) }
        }
        return [(name ?? "", value)]
    }
}
