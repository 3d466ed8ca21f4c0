import QAPI
import QMPWire
import Testing

@Suite struct KeyvalTests {
    private func refusal(_ text: String) -> String? {
        do {
            _ = try Keyval.parse(text, impliedKey: "driver")
            return nil
        } catch {
            return error.description
        }
    }

    @Test func dotsMakeObjects() throws {
        #expect(
            try JSONValue.object(Keyval.parse("qcow2,file.driver=file,file.a.b=1", impliedKey: "driver"))
                == ["driver": "qcow2", "file": ["driver": "file", "a": ["b": "1"]]])
    }

    @Test func numbersMakeLists() throws {
        #expect(try JSONValue.object(Keyval.parse("a.0=x,a.1.b=y")) == ["a": ["x", ["b": "y"]]])
        #expect(try JSONValue.object(Keyval.parse("a.1=y,a.0=x")) == ["a": ["x", "y"]])
    }

    @Test func aDoubledCommaIsOne() throws {
        #expect(try JSONValue.object(Keyval.parse("a=x,,y,b=,,")) == ["a": "x,y", "b": ","])
    }

    @Test func valuesMayBeEmptyAndHoldEqualSigns() throws {
        #expect(try JSONValue.object(Keyval.parse("a=,b=c=d")) == ["a": "", "b": "c=d"])
        #expect(try Keyval.parse("").isEmpty)
    }

    @Test func theLaterValueWins() throws {
        #expect(try JSONValue.object(Keyval.parse("a=1,a=2")) == ["a": "2"])
    }

    @Test(arguments: [
        ("driver=file,filename.=x", "Invalid parameter 'filename.'"),
        ("driver=file,.x=y", "Invalid parameter '.x'"),
        ("driver=file,1a=y", "Invalid parameter '1a'"),
        ("driver=file,driver.x=1", "Parameters 'driver.*' used inconsistently"),
        ("file.0=x,file.a=y", "Parameters 'file.*' used inconsistently"),
        ("file.x=1,file=y", "Parameters 'file.*' used inconsistently"),
        ("file.0=x,file.2=y", "Parameter 'file.1' missing"),
        ("driver=file,foo", "Expected '=' after parameter 'foo'"),
        ("=x", "Invalid parameter ''"),
    ])
    func errorsAreQEMUs(_ text: String, _ expected: String) {
        #expect(refusal(text) == expected)
    }

    @Test func longKeysAreRefused() {
        let long = String(repeating: "k", count: 128)
        #expect(refusal("\(long)=1") == "Parameter '\(long)' is too long")
        #expect(refusal("a.\(long)=1") == "Parameter fragment '\(long)' is too long")
    }

    @Test func depthIsBounded() {
        #expect(refusal(Array(repeating: "a", count: 100_000).joined(separator: ".") + "=1") != nil)
    }

    @Test func bracesMeanJSON() throws {
        #expect(try Keyval.input("{\"a\": {\"b\": 1}}").value == ["a": ["b": 1]])
        #expect(throws: QMPError.self) { try Keyval.input("{bad") }
    }
}
