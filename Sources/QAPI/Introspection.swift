import QMPWire

/// `query-qmp-schema`: the fragments of core and modules as one schema.
public enum Introspection {
    /// `SchemaInfo` objects of all fragments, each type once; open unions have the variants of all modules, and their
    /// discriminators' enumerations the values.
    public static func merged(_ modules: [SchemaFragment]) -> [JSONValue] {
        let fragments = [CoreSchema.fragment] + modules
        let branches = fragments.flatMap(\.branches)
        var seen: Set<String> = []
        var merged: [JSONValue] = []
        var wrappers: [String: String] = [:]
        for fragment in fragments {
            // The text is the generator's own.
            let infos = (try? JSONParser.parse(fragment.introspection))?.arrayValue ?? []
            for info in infos {
                guard let name = info["name"]?.stringValue, seen.insert(name).inserted else { continue }
                if let wrapper = info["open"]?.stringValue { wrappers[name] = wrapper }
                merged.append(complete(info, name: name, branches: branches))
            }
        }
        for branch in branches {
            guard let wrapper = wrappers[branch.union] else { continue }
            let name = wrapperName(branch)
            guard seen.insert(name).inserted else { continue }
            let member: JSONValue = ["name": .string(wrapper), "type": .string(branch.typeName)]
            merged.append(["name": .string(name), "meta-type": "object", "members": .array([member])])
        }
        return merged
    }

    private static func wrapperName(_ branch: QAPIBranch) -> String { "q_obj_\(branch.typeName)-wrapper" }

    private static func complete(_ info: JSONValue, name: String, branches: [QAPIBranch]) -> JSONValue {
        guard var object = info.objectValue else { return info }
        if let union = object["open-enum-of"]?.stringValue {
            object["open-enum-of"] = nil
            let values = branches.filter { $0.union == union }.map(\.value)
            object["members"] = .array(values.map { ["name": .string($0)] })
            object["values"] = .array(values.map { .string($0) })
        }
        if let wrapper = object["open"] {
            object["open"] = nil
            let mine = branches.filter { $0.union == name }
            object["variants"] = .array(
                mine.map { branch in
                    let type = wrapper == .null ? branch.typeName : wrapperName(branch)
                    return ["case": .string(branch.value), "type": .string(type)]
                })
        }
        return .object(object)
    }
}
