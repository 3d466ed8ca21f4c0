import QAPI
import QMPWire
import Testing

@Suite("Integers")
struct ScalarTests {
    private func error(_ text: String) -> String? { decodingError(TestServerOptions.self, text)?.description }

    @Test("A negative uint32 is refused by the C type's name")
    func negative() { #expect(error(#"{"max-connections":-1}"#) == "Parameter 'max-connections' expects uint32_t") }

    @Test("An uint32 that is too large is refused by the C type's name")
    func tooLarge() {
        #expect(error(#"{"max-connections":4294967296}"#) == "Parameter 'max-connections' expects uint32_t")
    }

    @Test("A string is no unsigned integer")
    func string() { #expect(error(#"{"max-connections":"7"}"#) == "Parameter 'max-connections' expects uint64") }

    @Test("An element of a list has no name in a range error")
    func element() { #expect(error(#"{"ports":[1,70000]}"#) == "Parameter 'null' expects uint16_t") }

    @Test("An element of a list has a place in a type error")
    func elementType() { #expect(error(#"{"ports":[1,"x"]}"#) == "Parameter 'ports[1]' expects uint64") }

    @Test(
        "Numbers with a fraction or beyond int64 are no int", arguments: ["1.0", "1e3", "true", "9223372036854775808"])
    func noInteger(_ text: String) {
        #expect(error(#"{"offset":\#(text)}"#) == "Invalid parameter type for 'offset', expected: integer")
    }

    @Test("A negative size wraps around, as QEMU has it")
    func negativeSize() throws {
        let input = QAPIInput(["filename": "/x", "size": -1])
        #expect(try TestFileCreateOptions(input).size == UInt64.max)
    }

    @Test("The largest unsigned number survives a round trip")
    func unsignedRoundTrip() throws {
        let input = QAPIInput(["filename": "/x", "size": JSONValue(UInt64.max)])
        #expect(try TestFileCreateOptions(input).json["size"] == .unsigned(UInt64.max))
    }
}
