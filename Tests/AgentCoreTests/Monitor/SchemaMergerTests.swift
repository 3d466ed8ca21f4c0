import QMPWire
import Testing

@testable import AgentCore

@Suite struct SchemaMergerTests {
    private let own: [JSONValue] = [
        ["name": "query-block", "meta-type": "command", "arg-type": "0", "ret-type": "[0]"],
        ["name": "0", "meta-type": "object", "members": [["name": "a", "type": "str"]]],
        ["name": "[0]", "meta-type": "array", "element-type": "0"],
        ["name": "str", "meta-type": "builtin", "json-type": "string"],
    ]
    private let guest: [JSONValue] = [
        ["name": "query-block", "meta-type": "command", "arg-type": "9", "ret-type": "[9]"],
        ["name": "query-status", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"],
        ["name": "STOP", "meta-type": "event", "arg-type": "0"],
        ["name": "0", "meta-type": "object", "members": []],
        [
            "name": "1", "meta-type": "object",
            "members": [["name": "s", "type": "str"], ["name": "n", "type": "int"]],
        ],
        ["name": "[1]", "meta-type": "array", "element-type": "1"],
        ["name": "9", "meta-type": "object", "members": []],
        ["name": "[9]", "meta-type": "array", "element-type": "9"],
        ["name": "str", "meta-type": "builtin", "json-type": "string"],
        ["name": "int", "meta-type": "builtin", "json-type": "int"],
    ]

    private func merged() -> [String: JSONValue] {
        let infos = SchemaMerger.merge(own: own, guest: guest)
        let names = infos.compactMap { $0["name"]?.stringValue }
        #expect(Set(names).count == names.count)
        return Dictionary(zip(names, infos)) { first, _ in first }
    }

    @Test func ownCommandsWin() {
        #expect(merged()["query-block"]?["ret-type"] == "[0]")
    }

    @Test func referencesLeadToTheGuestsTypes() throws {
        let merged = merged()
        let array = try #require(merged["query-status"]?["ret-type"]?.stringValue)
        let element = try #require(merged[array]?["element-type"]?.stringValue)
        #expect(merged[element]?["members"]?.arrayValue?.count == 2)
        let empty = try #require(merged["STOP"]?["arg-type"]?.stringValue)
        #expect(empty != "0")
        #expect(merged[empty]?["members"] == [])
    }

    @Test func typesThatNothingRefersToAreLeftOut() {
        // Four of ours; two commands' worth of the guest's: command, event, two objects, one array, int.
        #expect(merged().count == 10)
    }

    @Test func withoutAGuestNothingChanges() {
        #expect(SchemaMerger.merge(own: own, guest: []) == own)
    }
}
