import QAPI
import QMPWire

/// What a value of an open union needs, as its schema says: with it a test can open a driver that it knows nothing of.
struct SampleOptions {
    /// Required members that name nodes.
    var nodes: [String] = []
    /// Other required members: name and type.
    var others: [(name: String, type: String)] = []

    /// nil if no module has the value.
    init?(union: String, value: String) {
        let found = ModulesUnderTest.all.lazy.map(\.schema).compactMap { schema in
            schema.branches.first { $0.union == union && $0.value == value }.map { (schema, $0.typeName) }
        }.first
        guard let (schema, typeName) = found else { return nil }
        var entries: [JSONValue] = []
        var parser = JSONParser()
        parser.feed(Array(schema.introspection.utf8)) { entries += (try? $0.get())?.arrayValue ?? [] }
        let type = entries.first { $0["name"]?.stringValue == typeName }
        for member in type?["members"]?.arrayValue ?? [] where member["default"] == nil {
            guard let name = member["name"]?.stringValue, let type = member["type"]?.stringValue else { continue }
            if type == "BlockdevRef" { nodes.append(name) } else { others.append((name, type)) }
        }
    }
}
