import QAPI
import QMPWire
import Testing

@Suite("Round trip")
struct RoundTripTests {
    private func roundTrip<Value: QAPIValue>(_ type: Value.Type, _ text: String) throws {
        let json = try JSONParser.parse(text)
        #expect(try Value(QAPIInput(json, branches: testBranches)).json == json)
    }

    @Test("A node inside a node")
    func blockdev() throws {
        try roundTrip(
            BlockdevOptions.self,
            #"{"driver":"qcow2","node-name":"d","cache":{"direct":true},"file":{"driver":"file","filename":"/x"},"backing":null}"#
        )
    }

    @Test("A reference")
    func reference() throws { try roundTrip(BlockdevRef.self, #""disk0""#) }

    @Test("A transaction, whose actions have their members in data")
    func transaction() throws {
        try roundTrip(
            TransactionArguments.self,
            #"{"actions":[{"type":"abort","data":{}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d","name":"t"}}],"properties":{"completion-mode":"grouped"}}"#
        )
    }

    @Test("An image with a backing image")
    func image() throws {
        try roundTrip(
            ImageInfo.self,
            #"{"filename":"a","format":"qcow2","virtual-size":1,"backing-image":{"filename":"b","format":"raw","virtual-size":1}}"#
        )
    }

    @Test("Unions of the schema itself")
    func schemaInfo() throws {
        try roundTrip(
            SchemaInfo.self, #"{"name":"x","meta-type":"command","arg-type":"0","ret-type":"1","allow-oob":true}"#)
    }

    @Test("An event")
    func event() {
        #expect(JobStatusChangeEvent.name == "JOB_STATUS_CHANGE")
        #expect(JobStatusChangeEvent(id: "j", status: .null).json == ["id": "j", "status": "null"])
    }

    @Test("Absent members stay absent")
    func absent() throws { try roundTrip(SnapshotSaveArguments.self, #"{"job-id":"j","tag":"t","devices":[]}"#) }

    @Test("No arguments are an empty object")
    func empty() throws {
        try roundTrip(QAPIEmpty.self, "{}")
        #expect(decodingError(QAPIEmpty.self, #"{"x":1}"#)?.description == "Parameter 'x' is unexpected")
    }
}
