import QMPWire
import Testing

@testable import QAPI

@Suite("Introspection")
struct IntrospectionTests {
    private let masked = Introspection.merged([testFragment])
    private let plain = Introspection.merged([testFragment], maskingNames: false)

    private func entry(_ name: String) -> JSONValue? { plain.first { $0["name"]?.stringValue == name } }

    private func isClosed(_ entries: [JSONValue]) -> Bool {
        let defined = Set(entries.filter { !SchemaEntry.isRoot($0) }.compactMap { $0["name"]?.stringValue })
        return entries.flatMap(SchemaEntry.references).allSatisfy(defined.contains)
    }

    @Test("Every type that is used is defined")
    func closed() {
        #expect(isClosed(masked))
        #expect(isClosed(plain))
    }

    @Test("No entry is there twice")
    func unique() {
        let names = masked.compactMap { $0["name"]?.stringValue }
        #expect(names.count == masked.count)
        #expect(Set(names).count == names.count)
    }

    @Test("Every entry is a SchemaInfo")
    func decodes() throws { for entry in masked { _ = try SchemaInfo(QAPIInput(entry)) } }

    @Test("Every command of the core is there, with object arguments")
    func commands() {
        for name in CoreSchema.fragment.commands {
            #expect(entry(name)?["meta-type"] == "command")
            #expect(entry(name)?["arg-type"]?.stringValue.flatMap(entry)?["meta-type"] == "object")
        }
    }

    @Test("Names of types are numbers")
    func numbers() {
        for entry in masked where entry["meta-type"] == "object" || entry["meta-type"] == "enum" {
            #expect(entry["name"]?.stringValue.flatMap { Int($0) } != nil)
        }
    }

    @Test("An open union has the branches of modules, and its enum their values")
    func openUnion() {
        let variants = entry("BlockdevOptions")?["variants"]?.arrayValue ?? []
        #expect(variants.contains(["case": "qcow2", "type": "TestFormatOptions"]))
        #expect(entry("BlockdevDriver")?["values"] == ["file", "qcow2"])
        #expect(variants.count == 2)
    }

    @Test("A value that only another union has brings nothing")
    func emptyVariant() {
        let variants = entry("BlockdevCreateOptions")?["variants"]?.arrayValue ?? []
        #expect(variants.contains(["case": "qcow2", "type": "q_empty"]))
    }

    @Test("Branches of actions stand in `data`")
    func wrapped() {
        let variants = entry("TransactionAction")?["variants"]?.arrayValue ?? []
        let type = variants.first { $0["case"] == "abort" }?["type"]?.stringValue ?? ""
        #expect(entry(type)?["members"] == [["name": "data", "type": "Abort"]])
    }

    @Test("Integers of every width are int")
    func integers() {
        #expect(!plain.contains { ["size", "uint32", "int64"].contains($0["name"]?.stringValue ?? "") })
    }
}
