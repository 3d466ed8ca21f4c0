import QMPWire

/// `query-qmp-schema`: the fragments of core and modules as one schema.
public enum Introspection {
    /// SchemaInfo objects of everything that the fragments' commands and events use, each once: commands and events
    /// first, then their types. Open unions have the variants of all modules, open enums their values. Names of types
    /// are numbers, as in QEMU, so that no client relies on them; `maskingNames` false leaves them.
    public static func merged(_ modules: [SchemaFragment], maskingNames: Bool = true) -> [JSONValue] {
        let fragments = [CoreSchema.fragment] + modules.filter { $0.name != CoreSchema.fragment.name }
        let entries = IntrospectionEntries(fragments)
        var collector = TypeCollector { entries.types[$0] ?? SchemaEntry.derived($0) }
        for entry in entries.roots { collector.add(entry) }
        collector.addPending()
        return maskingNames ? TypeRenaming().apply(to: collector.entries) : collector.entries
    }
}

/// The entries of several fragments by name, completed by what modules add to the core's open types.
struct IntrospectionEntries {
    private(set) var roots: [JSONValue] = []
    private(set) var types: [String: JSONValue] = [:]

    init(_ fragments: [SchemaFragment]) {
        for fragment in fragments {
            // The text is the generator's own, hence it parses; a test looks at every fragment.
            for entry in (try? JSONParser.parse(fragment.introspection))?.arrayValue ?? [] {
                guard let name = entry["name"]?.stringValue else { continue }
                if SchemaEntry.isRoot(entry) { roots.append(entry) } else { types[name] = entry }
            }
        }
        types["q_empty"] = ["name": "q_empty", "meta-type": "object", "members": []]
        let table = BranchTable(fragments)
        for union in fragments.flatMap(\.openUnions) { complete(union, fragments.flatMap(\.branches), table) }
    }

    private mutating func complete(
        _ union: SchemaFragment.OpenUnion, _ branches: [SchemaFragment.Branch], _ table: BranchTable
    ) {
        let values = table.values(of: union.enumeration)
        if var object = types[union.enumeration]?.objectValue {
            object["members"] = .array(values.map { ["name": .string($0)] })
            object["values"] = .array(values.map { .string($0) })
            types[union.enumeration] = .object(object)
        }
        guard var object = types[union.union]?.objectValue else { return }
        let own = branches.filter { $0.union == union.union }
        object["variants"] = .array(
            values.map { value in
                let name = own.first { $0.value == value }.map { wrap($0.typeName, union.wrapper) } ?? "q_empty"
                return ["case": .string(value), "type": .string(name)]
            })
        types[union.union] = .object(object)
    }

    private mutating func wrap(_ typeName: String, _ wrapper: String?) -> String {
        guard let wrapper else { return typeName }
        let name = "q_obj_\(typeName)-wrapper"
        types[name] = [
            "name": .string(name), "meta-type": "object",
            "members": [["name": .string(wrapper), "type": .string(typeName)]],
        ]
        return name
    }
}
