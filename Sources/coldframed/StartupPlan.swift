import QAPI
import QMPWire

/// What the command line and the configuration ask for, checked as far as it can be without doing any of it.
struct StartupPlan: Sendable {
    enum Request: Sendable, Equatable {
        case run, showHelp, showVersion, showFaultPoints
    }

    var request = Request.run
    /// `--name`, or `name` of the configuration.
    var name: String?
    /// Written once everything below is done.
    var pidFile: String?
    /// `--end-with-parent`: the process that has started this one, with which it ends.
    var parent: Int32?
    /// `--allow-backing`: folders into which backing files that images name are followed.
    var allowedBackingFolders: [String] = []
    /// What becomes of the guest at a signal.
    var guestAtExit = GuestAtExit.keep
    /// To be done in this order, one after the other; the first failure ends the agent.
    var steps: [StartupStep] = []
}

/// One thing to do at the start, and where it was asked for.
struct StartupStep: Sendable {
    /// The words in front of an error: `--blockdev driver=file,...` or `web1.toml:12`.
    var location: String
    var action: StartupAction

    /// An error of this step, as it is shown.
    func describe(_ error: any Error) -> String { "\(location): \(error)" }
}

enum StartupAction: Sendable {
    /// `object-add`.
    case addObject(ObjectOptions)
    /// `blockdev-add`.
    case addBlockdev(BlockdevOptions)
    case addChardev(ChardevOptions)
    case addMonitor(MonitorOptions)
    /// The arguments of the command `nbd-server-start`.
    case startNBDServer(JSONObject)
    /// `block-export-add`.
    case addExport(BlockExportOptions)
    /// `guest-add`.
    case addGuest(GuestOptions)
    /// `snapshot-export-add`.
    case addSnapshotExport(SnapshotExportOptions)
}

/// `--monitor`.
struct MonitorOptions: Sendable, Equatable {
    /// Unique, if given.
    var id: String?
    /// The id of a chardev that an earlier step has made.
    var chardev: String
    /// Replies over several lines, indented.
    var isPretty = false
}

/// A command line or configuration that cannot be followed.
struct StartupError: Error, Equatable, CustomStringConvertible {
    /// Where and what, ready to be shown behind the program's name.
    let description: String

    init(_ description: String) { self.description = description }
    init(_ location: String, _ text: String) { description = "\(location): \(text)" }
}
