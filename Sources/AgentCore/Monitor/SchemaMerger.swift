import QMPWire

/// Makes one schema of the agent's and the guest's `query-qmp-schema`.
///
/// Commands and events that the agent has are the agent's, but for those that it shares with the guest, which the guest
/// describes whole. Types of the guest get new names, the names mean nothing to
/// clients, and those that nothing refers to any more are left out.
enum SchemaMerger {
    static func merge(own: [JSONValue], guest: [JSONValue], shared: Set<String> = []) -> [JSONValue] {
        if guest.isEmpty { return own }
        let left = shared.intersection(guest.compactMap { $0["name"]?.stringValue })
        let own = own.filter { !left.contains($0["name"]?.stringValue ?? "") }
        let ownNames = Set(own.compactMap { $0["name"]?.stringValue })
        var types: [String: JSONObject] = [:]
        var order: [String] = []
        var added: [JSONObject] = []
        for case .object(let info) in guest {
            guard let name = info["name"]?.stringValue, let kind = info["meta-type"]?.stringValue else { continue }
            if kind == "command" || kind == "event" {
                if !ownNames.contains(name) { added.append(info) }
            } else {
                if types[name] == nil { order.append(name) }
                types[name] = info
            }
        }
        let reached = reachable(from: added, types)
        let kept = order.filter(reached.contains)
        let names = renamed(kept, types, taken: ownNames)
        let renamedTypes = kept.compactMap { name -> JSONValue? in
            guard let info = types[name], let new = names[name] else { return nil }
            // A built-in type means the same on both sides.
            if new == name, ownNames.contains(name) { return nil }
            var object = rewrite(info, names)
            object["name"] = .string(new)
            return .object(object)
        }
        return own + added.map { .object(rewrite($0, names)) } + renamedTypes
    }

    /// New names: built-in types keep theirs, arrays follow their elements, the others are numbered from the first
    /// number that is free.
    private static func renamed(
        _ kept: [String], _ types: [String: JSONObject], taken: Set<String>
    ) -> [String: String] {
        var names: [String: String] = [:]
        var number = 0
        func fresh() -> String {
            while taken.contains(String(number)) || taken.contains("[\(number)]") { number += 1 }
            defer { number += 1 }
            return String(number)
        }
        for name in kept {
            switch types[name]?["meta-type"]?.stringValue {
            case "builtin": names[name] = name
            case "array": continue
            default: names[name] = fresh()
            }
        }
        for name in kept where types[name]?["meta-type"]?.stringValue == "array" {
            // An array of a built-in type exists once; every other is as new as its element.
            guard let element = types[name]?["element-type"]?.stringValue else { continue }
            let new = "[\(names[element] ?? element)]"
            names[name] = new
        }
        return names
    }

    /// The names of all types that the given commands and events lead to.
    private static func reachable(from roots: [JSONObject], _ types: [String: JSONObject]) -> Set<String> {
        var reached: Set<String> = []
        var open = roots.flatMap(references)
        while let name = open.popLast() {
            guard let type = types[name], reached.insert(name).inserted else { continue }
            open += references(type)
        }
        return reached
    }

    private static let referringMembers = ["arg-type", "ret-type", "element-type"]
    private static let referringLists = ["members", "variants"]

    private static func references(_ info: JSONObject) -> [String] {
        let direct = referringMembers.compactMap { info[$0]?.stringValue }
        let listed = referringLists.flatMap { info[$0]?.arrayValue ?? [] }.compactMap { $0["type"]?.stringValue }
        return direct + listed
    }

    private static func rewrite(_ info: JSONObject, _ names: [String: String]) -> JSONObject {
        func renamed(_ value: JSONValue?) -> JSONValue? {
            value?.stringValue.map { .string(names[$0] ?? $0) }
        }
        var info = info
        for key in referringMembers {
            if let name = renamed(info[key]) { info[key] = name }
        }
        for key in referringLists {
            guard let elements = info[key]?.arrayValue else { continue }
            let rewritten = elements.map { element -> JSONValue in
                guard var object = element.objectValue, let name = renamed(object["type"]) else { return element }
                object["type"] = name
                return .object(object)
            }
            info[key] = .array(rewritten)
        }
        return info
    }
}
