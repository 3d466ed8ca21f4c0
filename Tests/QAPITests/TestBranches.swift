import QAPI
import QMPWire

// Stand-ins for what modules bring: enough of `file`, `qcow2` and `nbd` to descend into them.

struct TestFileOptions: QAPIObjectValue {
    var filename: String
    init(members input: inout QAPIObjectInput) throws(QMPError) { filename = try input.required("filename") }
    func write(to object: inout JSONObject) { object["filename"] = filename.json }
}

struct TestFileCreateOptions: QAPIObjectValue {
    var filename: String
    var size: UInt64
    init(members input: inout QAPIObjectInput) throws(QMPError) {
        filename = try input.required("filename")
        size = try input.requiredByteCount("size")
    }
    func write(to object: inout JSONObject) {
        object["filename"] = filename.json
        object["size"] = size.json
    }
}

struct TestFormatOptions: QAPIObjectValue {
    var file: BlockdevRef
    var backing: BlockdevRefOrNull?
    init(members input: inout QAPIObjectInput) throws(QMPError) {
        file = try input.required("file")
        backing = try input.optional("backing")
    }
    func write(to object: inout JSONObject) {
        object["file"] = file.json
        if let backing { object["backing"] = backing.json }
    }
}

struct TestServerOptions: QAPIObjectValue {
    var maxConnections: UInt32?
    var ports: [UInt16]?
    var offset: Int64?
    init(members input: inout QAPIObjectInput) throws(QMPError) {
        maxConnections = try input.optional("max-connections")
        ports = try input.optional("ports")
        offset = try input.optional("offset")
    }
    func write(to object: inout JSONObject) {
        if let maxConnections { object["max-connections"] = maxConnections.json }
        if let ports { object["ports"] = ports.json }
        if let offset { object["offset"] = offset.json }
    }
}

let testFragment = SchemaFragment(
    name: "Test", openUnions: [], openValues: [],
    branches: [
        .init(union: "BlockdevOptions", value: "file", typeName: "TestFileOptions", type: TestFileOptions.self),
        .init(union: "BlockdevOptions", value: "qcow2", typeName: "TestFormatOptions", type: TestFormatOptions.self),
        .init(
            union: "BlockdevCreateOptions", value: "file", typeName: "TestFileCreateOptions",
            type: TestFileCreateOptions.self),
        .init(union: "BlockExportOptions", value: "nbd", typeName: "TestEmpty", type: QAPIEmpty.self),
    ],
    commands: [], events: [],
    introspection: """
        [{"name":"TestFileOptions","meta-type":"object","members":[{"name":"filename","type":"str"}]},
         {"name":"TestFileCreateOptions","meta-type":"object","members":[{"name":"size","type":"int"}]},
         {"name":"TestFormatOptions","meta-type":"object","members":[{"name":"file","type":"BlockdevRef"}]},
         {"name":"TestEmpty","meta-type":"object","members":[]}]
        """)

let testBranches = BranchTable([testFragment])

/// The error of decoding, or nil.
func decodingError<Value: QAPIValue>(_ type: Value.Type, _ text: String) -> QMPError? {
    do throws(QMPError) {
        _ = try Value(QAPIInput(try JSONParser.parse(text), branches: testBranches))
        return nil
    } catch {
        return error
    }
}

/// The same for a command line.
func keyValueError<Value: QAPIValue>(_ type: Value.Type, _ text: String) -> QMPError? {
    do throws(QMPError) {
        _ = try Value(QAPIInput(.object(try Keyval.parse(text)), notation: .keyValue, branches: testBranches))
        return nil
    } catch {
        return error
    }
}
