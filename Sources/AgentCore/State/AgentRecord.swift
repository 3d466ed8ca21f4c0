import CChecksum
import QMPWire

/// What a named agent has and what it has given up: enough to be the same agent after a restart.
///
/// In the file: `{"version": 1, "crc32c": N, "record": {…}}`, the checksum over the compact text of `record`.
struct AgentRecord: Sendable, Equatable {
    /// In the order in which they were made, which is one in which they can be made again.
    private(set) var items: [RecordedItem] = []
    /// What the configuration asks for and a client has taken away.
    private(set) var removed: [RecordedItem] = []
    /// The boot of the host in which this was written.
    var bootID = ""

    static let version: Int64 = 1

    mutating func add(_ item: RecordedItem) {
        items.removeAll { $0.isRival(of: item) }
        removed.removeAll { $0.isRival(of: item) }
        items.append(item)
    }

    mutating func remove(_ removal: RecordedRemoval) {
        removed += items.filter { $0.isConfigured && removal.matches($0) }
        items.removeAll { removal.matches($0) }
    }

    /// It is to be made in another way than it was.
    mutating func change(_ item: RecordedItem) {
        guard let index = items.firstIndex(where: { $0.isRival(of: item) }) else { return }
        var item = item
        item.isConfigured = items[index].isConfigured
        items[index] = item
    }

    /// It was never made.
    mutating func forget(_ item: RecordedItem) { items.removeAll { $0.isRival(of: item) } }

    /// What was given up under the guest that is taken over.
    mutating func takeRemoved(from other: AgentRecord) { removed = other.removed }

    /// Takes over how the graph stands. Returns what of an export or the guest is on another node now, in words.
    mutating func follow(_ shape: GraphShape) -> [(item: RecordedItem, change: String)] {
        for node in shape.nodes {
            let index = items.firstIndex { $0.kind == .node && $0.name == node.name }
            let isConfigured = index.map { items[$0].isConfigured } ?? false
            guard
                var item = RecordedItem(
                    command: "blockdev-add", arguments: node.arguments, isConfigured: isConfigured)
            else { continue }
            item.goesWithUsers = node.goesWithUsers
            if let index { items[index] = item } else { items.append(item) }
        }
        let elsewhere = Set(shape.gone + shape.nodes.flatMap { Self.innerNodeNames(.object($0.arguments)) })
        items.removeAll { $0.kind == .node && !$0.isConfigured && elsewhere.contains($0.name) }
        sortNodes(by: shape.order)
        var moved: [(RecordedItem, String)] = []
        var hasLateNodes = false
        for item in items {
            guard item.kind == .export, let nodeName = shape.exports[item.name] else { continue }
            let isElsewhere = item.shownNodeName != nodeName
            guard isElsewhere || stands(item, before: nodeName) else { continue }
            if isElsewhere { moved.append((item, "export '\(item.name)' shows node '\(nodeName)'")) }
            hasLateNodes = true
            // Behind the node, which may have been made after it, or stand on one that was.
            add(item.showing(nodeName: nodeName))
        }
        if let guest {
            let before = guest.movedDisks
            for (name, nodeName) in shape.disks.sorted(by: { $0.key < $1.key })
            where nodeName != before[name] ?? name {
                moved.append((guest, "the guest's disk '\(name)' is on node '\(nodeName)'"))
            }
            // Behind them, and behind the exports, which may be its disks.
            let isLate = shape.disks.values.contains { stands(guest, before: $0) }
            if hasLateNodes || isLate || !moved.isEmpty { add(guest.serving(shape.disks, overriding: true)) }
        }
        return moved
    }

    /// Of the nodes that are defined inside others.
    private static func innerNodeNames(_ definition: JSONValue) -> [String] {
        let members = definition.objectValue?.map { $0.1 } ?? definition.arrayValue ?? []
        return members.flatMap { member -> [String] in
            guard let name = member["node-name"]?.stringValue else { return innerNodeNames(member) }
            return [name] + innerNodeNames(member)
        }
    }

    /// The node is made later, by a command of its own or inside another.
    private func stands(_ item: RecordedItem, before nodeName: String) -> Bool {
        guard let place = items.firstIndex(where: { $0.isRival(of: item) }) else { return false }
        return items[place...].contains {
            $0.kind == .node
                && ($0.name == nodeName || Self.innerNodeNames(.object($0.arguments)).contains(nodeName))
        }
    }

    /// Nodes stand behind those that they refer to; what is no node keeps its place.
    private mutating func sortNodes(by order: [String]) {
        let places = items.indices.filter { items[$0].kind == .node && order.contains(items[$0].name) }
        let sorted = places.map { items[$0] }.sorted { left, right in
            (order.firstIndex(of: left.name) ?? 0) < (order.firstIndex(of: right.name) ?? 0)
        }
        for (place, item) in zip(places, sorted) { items[place] = item }
    }

    var guest: RecordedItem? { items.first { $0.kind == .guest } }

    // MARK: Text

    var text: [UInt8] {
        let record = JSONValue.object([
            "boot": .string(bootID), "items": .array(items.map(\.json)),
            "removed": .array(removed.map(\.json)),
        ])
        var bytes: [UInt8] = []
        JSONWriter.pretty(
            .object([
                "version": .integer(Self.version), "crc32c": .integer(Self.checksum(record)), "record": record,
            ]), into: &bytes)
        return bytes
    }

    /// Why a text is no record.
    struct Damage: Error, CustomStringConvertible {
        let description: String
    }

    init() {}

    init(text: [UInt8]) throws(Damage) {
        guard let json = try? JSONParser.parse(String(decoding: text, as: UTF8.self)), let record = json["record"]
        else {
            throw Damage(description: "it cannot be read")
        }
        guard json["version"]?.intValue == Self.version else {
            throw Damage(description: "it is of another version of the agent")
        }
        guard json["crc32c"]?.intValue == Self.checksum(record) else {
            throw Damage(description: "its checksum is wrong")
        }
        guard let bootID = record["boot"]?.stringValue,
            let items = record["items"]?.arrayValue, let removed = record["removed"]?.arrayValue
        else { throw Damage(description: "parts of it are missing") }
        self.bootID = bootID
        self.items = items.compactMap(RecordedItem.init(json:))
        self.removed = removed.compactMap(RecordedItem.init(json:))
        guard self.items.count == items.count, self.removed.count == removed.count else {
            throw Damage(description: "it holds what this version does not know")
        }
    }

    private static func checksum(_ record: JSONValue) -> Int64 {
        var bytes: [UInt8] = []
        JSONWriter.compact(record, into: &bytes)
        return Int64(bytes.withUnsafeBytes { cf_crc32c(0, $0.baseAddress, $0.count) })
    }
}

extension RecordedItem {
    fileprivate var json: JSONValue {
        .object([
            "command": .string(command), "arguments": .object(arguments), "configured": .bool(isConfigured),
            "goes-with-users": .bool(goesWithUsers),
        ])
    }

    fileprivate init?(json: JSONValue) {
        guard let command = json["command"]?.stringValue, let arguments = json["arguments"]?.objectValue,
            let isConfigured = json["configured"]?.boolValue
        else { return nil }
        self.init(command: command, arguments: arguments, isConfigured: isConfigured)
        // Not in what earlier versions wrote.
        goesWithUsers = json["goes-with-users"]?.boolValue ?? false
    }
}
