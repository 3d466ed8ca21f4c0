import QAPI

/// QEMU's two tables of jobs, written down from its `job.c` (`JobSTT`, `JobVerbTable`) and not from the agent: what the agent
/// does is held against them.
enum QEMUJobTables {
    /// The order of rows and columns of both.
    private static let order: [JobStatus] = [
        .undefined, .created, .running, .paused, .ready, .standby, .waiting, .pending, .aborting, .concluded, .null,
    ]

    /// From the row to the column.
    private static let transitions: [JobStatus: String] = [
        //           ucrpyswdxen
        .undefined: ".x.........",
        .created: "..x.....x.x",
        .running: "...xx.x.x..",
        .paused: "..x........",
        .ready: ".....xx.x..",
        .standby: "....x......",
        .waiting: ".......xx..",
        .pending: "........xx.",
        .aborting: "........xx.",
        .concluded: "..........x",
        .null: "...........",
    ]

    private static let verbs: [JobVerb: String] = [
        //        ucrpyswdxen
        .cancel: ".xxxxxxx...",
        .pause: ".xxxxx.....",
        .resume: ".xxxxx.....",
        .setSpeed: ".xxxxx.....",
        .complete: "....xx.....",
        .finalize: ".......x...",
        .dismiss: ".........x.",
    ]

    static func leads(_ status: JobStatus, to next: JobStatus) -> Bool { isMarked(transitions[status], next) }

    static func accepts(_ verb: JobVerb, in status: JobStatus) -> Bool { isMarked(verbs[verb], status) }

    private static func isMarked(_ row: String?, _ column: JobStatus) -> Bool {
        guard let row, let index = order.firstIndex(of: column) else { return false }
        return Array(row.utf8)[index] == UInt8(ascii: "x")
    }
}
