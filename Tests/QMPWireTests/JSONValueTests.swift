import Testing

@testable import QMPWire

@Suite struct JSONValueTests {
    @Test func objectsKeepTheOrderOfTheirMembers() {
        var object: JSONObject = ["z": 1, "a": 2]
        object["m"] = 3
        object["z"] = 4
        #expect(object.keys == ["z", "a", "m"])
        object["z"] = nil
        #expect(object.keys == ["a", "m"])
    }

    @Test func longObjectsFindTheirMembers() {
        var object = JSONObject()
        for number in 0..<100 { object["k\(number)"] = .integer(Int64(number)) }
        object["k50"] = nil
        #expect(object["k99"] == 99)
        #expect(object["k50"] == nil)
        #expect(object.count == 99)
    }

    @Test func equalityIgnoresOrder() {
        #expect(["a": 1, "b": [2]] as JSONValue == ["b": [2], "a": 1])
        #expect(["a": 1] as JSONValue != ["a": 1.0])
    }

    @Test func keysAreComparedByByte() {
        let object: JSONObject = ["e\u{301}": 1, "\u{e9}": 2]
        #expect(object.count == 2)
        #expect(object["\u{e9}"] == 2)
    }

    @Test func integersChooseTheirCase() {
        #expect(JSONValue(UInt64.max) == .unsigned(.max))
        #expect(JSONValue(UInt64(5)) == .integer(5))
        #expect(JSONValue(UInt64.max).uint64Value == .max)
        #expect(JSONValue(-1).uint64Value == nil)
    }

    @Test func prettyTextIsIndentedByFour() {
        let value: JSONValue = ["a": [1, [:]], "b": []]
        #expect(
            JSONWriter.string(value, pretty: true) == """
                {
                    "a": [
                        1,
                        {
                        }
                    ],
                    "b": [
                    ]
                }
                """)
    }

    @Test func messagesEndTheirLinesInCRLF() {
        #expect(JSONWriter.message(["a": 1]) == Array("{\"a\": 1}\r\n".utf8))
        #expect(JSONWriter.message([:], pretty: true) == Array("{\r\n}\r\n".utf8))
    }

    @Test func noncharactersAreReplaced() {
        #expect(JSONWriter.string("\u{FFFE}") == #""\uFFFD""#)
    }

    @Test(arguments: [
        ("[]", false, "QMP input must be a JSON object"),
        ("{}", false, "QMP input lacks member 'execute'"),
        ("{'execute': 1}", false, "QMP input member 'execute' must be a string"),
        ("{'execute': 'x', 'arguments': null}", false, "QMP input member 'arguments' must be an object"),
        ("{'execute': 'x', 'control': 1}", false, "QMP input member 'control' is unexpected"),
        ("{'exec-oob': 'x'}", false, "QMP input member 'exec-oob' is unexpected"),
        ("{'exec-oob': 'x', 'execute': 'x'}", true, "QMP input member 'execute' clashes with 'exec-oob'"),
    ])
    func envelopesAreChecked(_ text: String, _ outOfBand: Bool, _ expected: String) throws {
        let value = try JSONParser.parse(text)
        #expect(throws: QMPEnvelopeError(error: QMPError(.genericError, expected), id: nil)) {
            try QMPRequest(envelope: value, outOfBandEnabled: outOfBand)
        }
    }

    @Test func anyIdIsKept() throws {
        let value = try JSONParser.parse("{'execute': 'x', 'id': null}")
        let request = try QMPRequest(envelope: value, outOfBandEnabled: false)
        #expect(request.id == .null)
        #expect(QMPResponse.success([:], id: request.id).description == #"{"return": {}, "id": null}"#)
    }
}
