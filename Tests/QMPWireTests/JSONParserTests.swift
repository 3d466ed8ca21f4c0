import Testing

@testable import QMPWire

/// What a parser emits, as texts: values in compact form, errors behind `!`.
func outcomes(_ bytes: [UInt8], limits: JSONParser.Limits = .init(), finish: Bool = false) -> [String] {
    outcomes(pieces: [bytes], limits: limits, finish: finish)
}

func outcomes(pieces: [[UInt8]], limits: JSONParser.Limits = .init(), finish: Bool = false) -> [String] {
    var parser = JSONParser(limits: limits)
    var collected: [String] = []
    let collect = { (outcome: Result<JSONValue, QMPError>) in
        switch outcome {
        case .success(let value): collected.append(value.description)
        case .failure(let error): collected.append("!" + error.description)
        }
    }
    for piece in pieces { parser.feed(piece, collect) }
    if finish { parser.finish(collect) }
    return collected
}

func outcomes(_ text: String) -> [String] { outcomes(Array(text.utf8)) }

@Suite struct JSONParserTests {
    @Test(arguments: [
        ("{}", "{}"),
        ("[]", "[]"),
        ("[ 1 , 2 ]", "[1, 2]"),
        ("{'a': 'b'}", #"{"a": "b"}"#),
        (#"['it\'s']"#, #"["it's"]"#),
        (#"["it's"]"#, #"["it's"]"#),
        (#"{"b": 1, "a": {"d": null, "c": [true, false]}}"#, #"{"b": 1, "a": {"d": null, "c": [true, false]}}"#),
        ("[9223372036854775807]", "[9223372036854775807]"),
        ("[-9223372036854775808]", "[-9223372036854775808]"),
        ("[9223372036854775808]", "[9223372036854775808]"),
        ("[18446744073709551615]", "[18446744073709551615]"),
        ("[18446744073709551616]", "[1.8446744073709552e+19]"),
        ("[1.0]", "[1]"),
        ("[1e3]", "[1000]"),
        ("[0.1]", "[0.10000000000000001]"),
        ("[-0]", "[0]"),
        ("[1.5E-3]", "[0.0015]"),
        (#"["\u00e9\ud83d\ude00"]"#, #"["\u00E9\uD83D\uDE00"]"#),
        (#"["\u0000\/\b\f\n\r\t\"\\"]"#, #"["\u0000/\b\f\n\r\t\"\\"]"#),
        ("[\"\u{e9}\u{1F600}\u{7f}\"]", #"["\u00E9\uD83D\uDE00\u007F"]"#),
        ("12\n", "12"),
        ("null\n", "null"),
        ("\"x\"", "\"x\""),
    ])
    func accepts(_ text: String, _ expected: String) {
        #expect(outcomes(text) == [expected])
    }

    @Test(arguments: [
        ("[01]", ["!JSON parse error, stray '01'", "!JSON parse error, expecting value"]),
        ("[1e400]", ["!JSON parse error, number out of range"]),
        ("[1,]", ["!JSON parse error, expecting value"]),
        ("{\"a\" 1}", ["!JSON parse error, missing : in object pair"]),
        ("{\"a\": 1 \"b\": 2}", ["!JSON parse error, expected separator in dict"]),
        ("[1 2]", ["!JSON parse error, expected separator in list"]),
        ("{1: 2}", ["!JSON parse error, key is not a string in object"]),
        ("{\"a\": 1, \"a\": 2}", ["!JSON parse error, duplicate key"]),
        ("[{\"a\": 1, \"\\u0061\": 2}]", ["!JSON parse error, duplicate key"]),
        ("[tru]", ["!JSON parse error, invalid keyword 'tru'"]),
        ("}", ["!JSON parse error, expecting value"]),
        ("{]", ["!JSON parse error, expecting value"]),
        (#"["\ud800"]"#, [#"!JSON parse error, \ud800 is not a valid Unicode character"#]),
        (#"["\ud800\u0041"]"#, [#"!JSON parse error, \ud800 is not a valid Unicode character"#]),
        (#"["\ufffe"]"#, [#"!JSON parse error, \ufffe is not a valid Unicode character"#]),
        (#"["\u12"]"#, [#"!JSON parse error, \u12" is not a valid Unicode character"#]),
        (#"["\x"]"#, ["!JSON parse error, invalid escape sequence in string"]),
    ])
    func refuses(_ text: String, _ expected: [String]) {
        #expect(outcomes(text) == expected)
    }

    @Test(
        arguments: [
            [0xC3], [0xC3, 0x28], [0x80], [0xC0, 0xAF], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xEF, 0xBF, 0xBF],
            [0xF4, 0x90, 0x80, 0x80], [0xF8, 0x88, 0x80, 0x80, 0x80],
        ] as [[UInt8]])
    func refusesInvalidUTF8(_ bytes: [UInt8]) {
        let text = Array("[\"".utf8) + bytes + Array("\"]".utf8)
        #expect(outcomes(text) == ["!JSON parse error, invalid UTF-8 sequence in string"])
    }

    @Test func goesOnAfterGarbage() {
        #expect(
            outcomes("@#garbage here\n{\"a\": 1}{\"b\": 2}") == [
                "!JSON parse error, stray '@'", #"{"a": 1}"#, #"{"b": 2}"#,
            ])
    }

    @Test(arguments: [0xFE, 0xFF] as [UInt8])
    func resetByteForgetsAMessage(_ byte: UInt8) {
        let text = Array("{\"a\": [1, ".utf8) + [byte] + Array("{\"b\": 2}".utf8)
        let results = outcomes(text)
        #expect(results.count == 2)
        #expect(results.last == #"{"b": 2}"#)
    }

    @Test func resetBytesAloneAreOneErrorEach() {
        #expect(outcomes([0xFF, 0xFF, 0xFF]).count == 3)
    }

    @Test func controlCharacterEndsAString() {
        #expect(outcomes("[\"a\n[1]") == ["!JSON parse error, stray '\"a\n'", "[1]"])
    }

    @Test func bareScalarNeedsADelimiter() {
        #expect(outcomes("12").isEmpty)
        #expect(outcomes(Array("12".utf8), finish: true) == ["12"])
    }

    @Test func endOfInputInAMessageIsAnError() {
        #expect(outcomes(Array("{\"a\":".utf8), finish: true) == ["!JSON parse error, premature EOI"])
    }

    @Test func depth1024IsAccepted() throws {
        let text = String(repeating: "[", count: 1024) + String(repeating: "]", count: 1024)
        #expect(outcomes(text) == [text])
    }

    @Test func depth1025IsRefusedOnceForEachLeftover() {
        let text = String(repeating: "[", count: 1025) + String(repeating: "]", count: 1025)
        let results = outcomes(text)
        #expect(results.count == 1026)
        #expect(results.first == "!JSON nesting depth limit exceeded")
    }

    @Test func tokenBytesAreBounded() {
        let limits = JSONParser.Limits(tokenByteCount: 16)
        #expect(outcomes(Array("[\"0123456789\"]".utf8), limits: limits) == [#"["0123456789"]"#])
        let results = outcomes(Array("[\"0123456789abcdef\"]\n[1]".utf8), limits: limits)
        #expect(results.first == "!JSON token size limit exceeded")
        #expect(results.last == "[1]")
    }

    @Test func tokenCountIsBounded() {
        let limits = JSONParser.Limits(tokenCount: 5)
        #expect(outcomes(Array("[1,2]".utf8), limits: limits) == ["[1, 2]"])
        #expect(outcomes(Array("[1,2,3]".utf8), limits: limits).first == "!JSON token count limit exceeded")
    }

    @Test func strayTextIsCut() {
        let text = "\"" + String(repeating: "x", count: 5000) + "\u{1}"
        let results = outcomes(text)
        #expect(results.count == 1)
        #expect(results[0].utf8.count < 1100)
    }

    @Test func parseWantsOneValue() throws {
        #expect(try JSONParser.parse("[1]") == [1])
        #expect(throws: QMPError(.genericError, "Expecting a JSON value")) { try JSONParser.parse("  ") }
        #expect(throws: QMPError(.genericError, "Expecting at most one JSON value")) {
            try JSONParser.parse("1 2")
        }
    }

    /// A quadratic check would take minutes.
    @Test func manyMembersTakeLinearTime() throws {
        let members = (0..<200_000).map { "\"key\($0)\":\($0)" }.joined(separator: ",")
        let clock = ContinuousClock()
        var parsed: JSONValue?
        let duration = try clock.measure { parsed = try JSONParser.parse("{\(members)}") }
        #expect(parsed?.objectValue?.count == 200_000)
        #expect(duration < .seconds(60))
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func resultsDoNotDependOnTheCut(_ seed: UInt64) {
        var random = SeededGenerator(state: seed)
        let fragments: [[UInt8]] =
            [
                "{\"a\": [1, 2.5, \"x\\u0041\"]}", "[", "]", "{", "}", ",", ":", "'a'", "\"b\"", "tru", "null\n", "01",
                "-", "1e5", "@", " ", "\n", "\t", "\\", "\u{e9}",
            ].map { Array($0.utf8) } + [[0xFF], [0xC3], [0x00]]
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 1..<60, using: &random) {
            bytes += fragments.randomElement(using: &random) ?? []
        }
        var pieces: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Int.random(in: 1...min(7, rest.count), using: &random)
            pieces.append(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        #expect(outcomes(pieces: pieces, finish: true) == outcomes(bytes, finish: true))
    }
}

/// Reproducible random numbers (xorshift).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        var value = state
        value ^= value >> 33
        value = value &* 0xff51_afd7_ed55_8ccd
        value ^= value >> 29
        return value
    }
}
