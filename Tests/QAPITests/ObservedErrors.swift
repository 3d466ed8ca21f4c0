import QAPI
import QMPWire
import Testing

/// What qemu-storage-daemon 7.2 was observed to answer; class GenericError throughout.
private let observed: [(command: String, arguments: String, text: String)] = [
    (
        "blockdev-add", #"{}"#,
        "Parameter 'driver' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"zz","node-name":3}"#,
        "Parameter 'driver' does not accept value 'zz'"
    ),
    (
        "blockdev-add", #"{"driver":7}"#,
        "Invalid parameter type for 'driver', expected: string"
    ),
    (
        "blockdev-add", #"{"node-name":3}"#,
        "Parameter 'driver' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"file","node-name":3}"#,
        "Invalid parameter type for 'node-name', expected: string"
    ),
    (
        "blockdev-add", #"{"driver":"file"}"#,
        "Parameter 'filename' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"file","filename":1}"#,
        "Invalid parameter type for 'filename', expected: string"
    ),
    (
        "blockdev-add", #"{"driver":"file","filename":"/x","y":1}"#,
        "Parameter 'y' is unexpected"
    ),
    (
        "blockdev-add", #"{"driver":"file","filename":null}"#,
        "Invalid parameter type for 'filename', expected: string"
    ),
    (
        "blockdev-add", #"{"driver":"file","read-only":"on","filename":"/x"}"#,
        "Invalid parameter type for 'read-only', expected: boolean"
    ),
    (
        "blockdev-add", #"{"driver":"file","discard":"zz","filename":"/x"}"#,
        "Parameter 'discard' does not accept value 'zz'"
    ),
    (
        "blockdev-add", #"{"driver":"file","cache":7,"filename":"/x"}"#,
        "Invalid parameter type for 'cache', expected: object"
    ),
    (
        "blockdev-add", #"{"driver":"file","cache":{"direct":1},"filename":"/x"}"#,
        "Invalid parameter type for 'cache.direct', expected: boolean"
    ),
    (
        "blockdev-add", #"{"driver":"file","cache":{"x":1},"filename":"/x"}"#,
        "Parameter 'cache.x' is unexpected"
    ),
    (
        "blockdev-add", #"{"driver":"file","cache":null,"filename":"/x"}"#,
        "Invalid parameter type for 'cache', expected: object"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2"}"#,
        "Parameter 'file' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":7}"#,
        "Invalid parameter type for 'file', expected: BlockdevRef"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":{"driver":"file"}}"#,
        "Parameter 'file.filename' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":{"driver":"zz"}}"#,
        "Parameter 'driver' does not accept value 'zz'"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":{"driver":"file","filename":"/x","x":1}}"#,
        "Parameter 'file.x' is unexpected"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":{"driver":"file","filename":[]}}"#,
        "Invalid parameter type for 'file.filename', expected: string"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":"a","backing":7}"#,
        "Invalid parameter type for 'backing', expected: BlockdevRefOrNull"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","file":"a","backing":{"driver":"file"}}"#,
        "Parameter 'backing.filename' is missing"
    ),
    (
        "blockdev-add", #"{"driver":"qcow2","x":1,"file":{"driver":"file"}}"#,
        "Parameter 'file.filename' is missing"
    ),
    (
        "blockdev-del", #"{}"#,
        "Parameter 'node-name' is missing"
    ),
    (
        "blockdev-del", #"{"node-name":"a","x":1}"#,
        "Parameter 'x' is unexpected"
    ),
    (
        "blockdev-create", #"{"job-id":"j"}"#,
        "Parameter 'options' is missing"
    ),
    (
        "blockdev-create", #"{"job-id":"j","options":[]}"#,
        "Invalid parameter type for 'options', expected: object"
    ),
    (
        "blockdev-create", #"{"job-id":"j","options":{"driver":"file","filename":"/x"}}"#,
        "Parameter 'options.size' is missing"
    ),
    (
        "blockdev-create", #"{"job-id":"j","options":{"driver":"file","filename":"/x","size":"7"}}"#,
        "Parameter 'options.size' expects uint64"
    ),
    (
        "blockdev-create", #"{"job-id":"j","options":{"driver":"file","filename":"/x","size":1.0}}"#,
        "Parameter 'options.size' expects uint64"
    ),
    (
        "blockdev-create", #"{"job-id":"j","options":{"driver":"file","filename":"/x","size":1,"y":2}}"#,
        "Parameter 'options.y' is unexpected"
    ),
    (
        "block-export-add", #"{"type":"zz"}"#,
        "Parameter 'type' does not accept value 'zz'"
    ),
    (
        "block-export-add", #"{"id":"e"}"#,
        "Parameter 'type' is missing"
    ),
    (
        "block-export-add", #"{"type":"nbd","id":7}"#,
        "Invalid parameter type for 'id', expected: string"
    ),
    (
        "block-export-add", #"{"type":"nbd","id":"e"}"#,
        "Parameter 'node-name' is missing"
    ),
    (
        "block-export-add", #"{"type":"nbd","id":"e","node-name":"n","writable":0}"#,
        "Invalid parameter type for 'writable', expected: boolean"
    ),
    (
        "block-export-del", #"{"id":"e","mode":"zz"}"#,
        "Parameter 'mode' does not accept value 'zz'"
    ),
    (
        "block-export-del", #"{"id":"e","mode":1}"#,
        "Invalid parameter type for 'mode', expected: string"
    ),
    (
        "job-pause", #"{}"#,
        "Parameter 'id' is missing"
    ),
    (
        "job-pause", #"{"id":[]}"#,
        "Invalid parameter type for 'id', expected: string"
    ),
    (
        "job-cancel", #"{"id":"j","force":true}"#,
        "Parameter 'force' is unexpected"
    ),
    (
        "query-jobs", #"{"x":1}"#,
        "Parameter 'x' is unexpected"
    ),
    (
        "query-named-block-nodes", #"{"flat":1}"#,
        "Invalid parameter type for 'flat', expected: boolean"
    ),
    (
        "query-named-block-nodes", #"{"flat":null}"#,
        "Invalid parameter type for 'flat', expected: boolean"
    ),
    (
        "transaction", #"{}"#,
        "Parameter 'actions' is missing"
    ),
    (
        "transaction", #"{"actions":{}}"#,
        "Invalid parameter type for 'actions', expected: array"
    ),
    (
        "transaction", #"{"actions":[7]}"#,
        "Invalid parameter type for 'actions[0]', expected: object"
    ),
    (
        "transaction", #"{"actions":[{}]}"#,
        "Parameter 'actions[0].type' is missing"
    ),
    (
        "transaction", #"{"actions":[{"type":"zz"}]}"#,
        "Parameter 'type' does not accept value 'zz'"
    ),
    (
        "transaction", #"{"actions":[{"type":"abort"}]}"#,
        "Parameter 'actions[0].data' is missing"
    ),
    (
        "transaction", #"{"actions":[{"type":"abort","data":7}]}"#,
        "Invalid parameter type for 'actions[0].data', expected: object"
    ),
    (
        "transaction", #"{"actions":[{"type":"abort","data":{"x":1}}]}"#,
        "Parameter 'actions[0].data.x' is unexpected"
    ),
    (
        "transaction",
        #"{"actions":[{"type":"abort","data":{}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d"}}]}"#,
        "Parameter 'actions[1].data.name' is missing"
    ),
    (
        "transaction", #"{"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d","name":3}}]}"#,
        "Invalid parameter type for 'actions[0].data.name', expected: string"
    ),
    (
        "transaction",
        #"{"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d","name":"n"},"x":1}]}"#,
        "Parameter 'actions[0].x' is unexpected"
    ),
    (
        "transaction", #"{"actions":[],"properties":{"completion-mode":"zz"}}"#,
        "Parameter 'completion-mode' does not accept value 'zz'"
    ),
    (
        "transaction", #"{"actions":[],"properties":{"x":1}}"#,
        "Parameter 'properties.x' is unexpected"
    ),
    (
        "blockdev-snapshot-delete-internal-sync", #"{"device":"d","id":3}"#,
        "Invalid parameter type for 'id', expected: string"
    ),
    (
        "blockdev-snapshot-internal-sync", #"{"device":"d"}"#,
        "Parameter 'name' is missing"
    ),
]

private func error(of command: String, _ arguments: String) -> QMPError? {
    switch command {
    case "blockdev-add": decodingError(BlockdevAddCommand.Arguments.self, arguments)
    case "blockdev-del": decodingError(BlockdevDelCommand.Arguments.self, arguments)
    case "blockdev-create": decodingError(BlockdevCreateCommand.Arguments.self, arguments)
    case "block-export-add": decodingError(BlockExportAddCommand.Arguments.self, arguments)
    case "block-export-del": decodingError(BlockExportDelCommand.Arguments.self, arguments)
    case "job-pause": decodingError(JobPauseCommand.Arguments.self, arguments)
    case "job-cancel": decodingError(JobCancelCommand.Arguments.self, arguments)
    case "query-jobs": decodingError(QueryJobsCommand.Arguments.self, arguments)
    case "query-named-block-nodes": decodingError(QueryNamedBlockNodesCommand.Arguments.self, arguments)
    case "transaction": decodingError(TransactionCommand.Arguments.self, arguments)
    case "blockdev-snapshot-delete-internal-sync":
        decodingError(BlockdevSnapshotDeleteInternalSyncCommand.Arguments.self, arguments)
    case "blockdev-snapshot-internal-sync": decodingError(BlockdevSnapshotInternalSyncCommand.Arguments.self, arguments)
    default: nil
    }
}

@Test("Wrong arguments get the text of qemu-storage-daemon", arguments: observed.indices)
func observedText(_ index: Int) {
    let row = observed[index]
    #expect(error(of: row.command, row.arguments) == QMPError(.genericError, row.text))
}
