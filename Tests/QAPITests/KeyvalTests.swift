import QAPI
import QMPWire
import Testing

@Suite("Options of a command line")
struct KeyvalTests {
    private func parse(_ text: String, impliedKey: String? = nil) throws -> JSONValue {
        .object(try Keyval.parse(text, impliedKey: impliedKey))
    }

    private func error(_ text: String) -> String? {
        do throws(QMPError) {
            _ = try Keyval.parse(text)
            return nil
        } catch {
            return error.description
        }
    }

    @Test("Dotted keys are nested objects")
    func nested() throws {
        #expect(
            try parse("driver=qcow2,file.driver=file,file.filename=/x,cache.direct=on")
                == ["driver": "qcow2", "file": ["driver": "file", "filename": "/x"], "cache": ["direct": "on"]])
    }

    @Test("Two commas are one inside a value")
    func comma() throws { #expect(try parse("filename=a,,b,x=c") == ["filename": "a,b", "x": "c"]) }

    @Test("Numbers in keys are places in a list, in any order")
    func list() throws { #expect(try parse("l.1=b,l.0=a") == ["l": ["a", "b"]]) }

    @Test("The last value counts")
    func last() throws { #expect(try parse("a=1,a=2") == ["a": "2"]) }

    @Test("A first value without key takes the implied one")
    func implied() throws { #expect(try parse("unix,path=/x", impliedKey: "type") == ["type": "unix", "path": "/x"]) }

    @Test("A trailing comma and an empty value are allowed")
    func empty() throws { #expect(try parse("a=,") == ["a": ""]) }

    @Test(
        "Faults have QEMU's texts",
        arguments: [
            ("a", "Expected '=' after parameter 'a'"),
            ("=1", "Invalid parameter ''"),
            ("a..b=1", "Invalid parameter 'a..b'"),
            ("0=1", "Invalid parameter '0'"),
            ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
            ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
            ("a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"),
            ("a.1=1", "Parameter 'a.0' missing"),
            ("help", "Help is not available for this option"),
        ])
    func faults(_ text: String, _ expected: String) { #expect(error(text) == expected) }

    @Test("A key's component has at most 127 bytes")
    func length() {
        let long = String(repeating: "a", count: 128)
        #expect(error(long + "=1") == "Parameter '\(long)' is too long")
        #expect(error("x.\(long)=1") == "Parameter fragment '\(long)' is too long")
    }

    @Test(
        "Scalars are read by the type that is expected",
        arguments: [
            ("driver=file,filename=/x,read-only=maybe", "Parameter 'read-only' expects 'on' or 'off'"),
            ("driver=file,filename.x=1", "Parameters 'filename.*' are unexpected"),
            ("driver=file", "Parameter 'filename' is missing"),
            ("driver=file,filename=/x,y=1", "Parameter 'y' is unexpected"),
            ("driver=qcow2,file.driver=file", "Parameter 'file.filename' is missing"),
            ("driver=file,filename=/x,cache=on", "Invalid parameter type for 'cache', expected: object"),
        ])
    func decoding(_ text: String, _ expected: String) {
        #expect(keyValueError(BlockdevOptions.self, text)?.description == expected)
    }

    @Test("A whole node decodes")
    func node() throws {
        let input = QAPIInput(
            try parse("driver=qcow2,node-name=d,read-only=on,file.driver=file,file.filename=/x"),
            notation: .keyValue, branches: testBranches)
        let options = try BlockdevOptions(input)
        #expect(options.nodeName == "d")
        #expect(options.readOnly == true)
        let format = try #require(options.branch as? TestFormatOptions)
        guard case .definition(let file) = format.file else {
            Issue.record("file is no definition")
            return
        }
        #expect((file.branch as? TestFileOptions)?.filename == "/x")
    }

    @Test(
        "Sizes take suffixes",
        arguments: [
            ("0", 0), ("512", 512), ("1k", 1024), ("2M", 2 << 20), ("1.5G", 3 << 29), ("0x10", 16), ("1B", 1),
            ("0.5k", 512), ("16E", nil), ("1.5", nil), ("-1", nil), ("1kk", nil), ("", nil), ("15E", 15 << 60),
        ] as [(String, UInt64?)])
    func sizes(_ text: String, _ expected: UInt64?) {
        let input = QAPIInput(["filename": "/x", "size": .string(text)], notation: .keyValue, branches: testBranches)
        #expect((try? TestFileCreateOptions(input))?.size == expected)
    }

    @Test("Integers are decimal, octal or hexadecimal", arguments: [("10", 10), ("010", 8), ("0x10", 16), ("-5", -5)])
    func integers(_ text: String, _ expected: Int64) throws {
        #expect(try TestServerOptions(QAPIInput(["offset": .string(text)], notation: .keyValue)).offset == expected)
    }

    @Test("An integer that is none is refused", arguments: ["x", "", "1x", "0x", "--1", "9223372036854775808"])
    func badIntegers(_ text: String) {
        #expect(
            keyValueError(TestServerOptions.self, "offset=\(text)")?.description == "Parameter 'offset' expects integer"
        )
    }

    @Test("Text that begins with a brace is JSON")
    func json() throws {
        let input = try Keyval.input(#"{"a": 1}"#)
        #expect(input.notation == .json)
        #expect(input.value == ["a": 1])
    }
}
