import Testing

@testable import AgentCore

@Suite("Set record")
struct SetRecordTests {
    private let uuid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

    @Test("What is written is read back")
    func roundTrip() {
        let record = SetRecord(
            uuid: uuid, memberCount: 3, way: .live,
            state: SetRecord.State(byteCount: 0x1_2345_6789_ABCD, checksum: 0xDEAD_BEEF))
        #expect(record.bytes.count == SetRecord.byteCount)
        #expect(SetRecord(record.bytes) == record)
        #expect(record.uuidText == uuid)
    }

    @Test("A record without a state says so")
    func withoutState() {
        let record = SetRecord(uuid: uuid, memberCount: 1, way: .disks)
        #expect(SetRecord(record.bytes)?.state == nil)
        #expect(!record.hasState)
    }

    @Test("Strangers' annotations and other versions are no records")
    func strangers() {
        #expect(SetRecord([]) == nil)
        #expect(SetRecord([UInt8](repeating: 0, count: 40)) == nil)
        var bytes = SetRecord(uuid: uuid, memberCount: 1, way: .disks).bytes
        bytes[0] = 2
        #expect(SetRecord(bytes) == nil)
    }
}
