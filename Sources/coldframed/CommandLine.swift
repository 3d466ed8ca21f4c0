import AgentCore
import LinuxSystem
import QAPI
import QMPWire

/// The command line: qemu-storage-daemon's options, in their order, and a few of ours.
///
/// Nothing is done here. Options are decoded one after the other; what `--config` names is read where it stands.
struct CommandLineParser {
    private var plan = StartupPlan()
    private var chardevs: Set<String> = []
    private var usedChardevs: Set<String> = []
    private var monitors: Set<String> = []
    private var hasStandardStreams = false

    /// Parses the arguments behind the program's name. The branches of the modules must be installed
    /// (`BranchTable.install`).
    /// - Throws: with QEMU's words where QEMU has some.
    static func parse(arguments: [String]) throws(StartupError) -> StartupPlan {
        var parser = CommandLineParser()
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            guard let (option, attached) = try Option.find(argument) else {
                throw StartupError(argument, "Unexpected argument")
            }
            if !option.takesValue {
                if attached != nil { throw StartupError("option '--\(option.rawValue)' doesn't allow an argument") }
                parser.plan.request =
                    switch option {
                    case .help: .showHelp
                    case .faultPoints: .showFaultPoints
                    default: .showVersion
                    }
                return parser.plan
            }
            guard let value = attached ?? rest.popFirst() else {
                throw StartupError("option '--\(option.rawValue)' requires an argument")
            }
            try parser.apply(option, value)
        }
        return parser.plan
    }

    enum Option: String, CaseIterable {
        case help, version, blockdev, chardev, monitor, export, object, pidfile, config, name, daemonize
        case nbdServer = "nbd-server"
        case allowBacking = "allow-backing"
        case faultPoints = "fault-points"
        case endWithParent = "end-with-parent"
        case guestAtExit = "guest-at-exit"

        var takesValue: Bool { ![.help, .version, .daemonize, .faultPoints].contains(self) }

        /// The option and what is attached to it by `=`; nil if it is none.
        static func find(_ argument: String) throws(StartupError) -> (Option, value: String?)? {
            if argument == "-h" { return (.help, nil) }
            if argument == "-V" { return (.version, nil) }
            guard argument.utf8.starts(with: "-".utf8), argument != "-" else { return nil }
            let dashes = argument.utf8.starts(with: "--".utf8) ? 2 : 1
            let parts = argument.dropFirst(dashes).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard dashes == 2, let option = Option(rawValue: String(parts[0])) else {
                throw StartupError("unrecognized option '\(argument)': see --help")
            }
            if option == .daemonize {
                throw StartupError(
                    "--daemonize is not supported: start it under systemd, or put '&' behind the command")
            }
            return (option, parts.count > 1 ? String(parts[1]) : nil)
        }
    }

    private mutating func apply(_ option: Option, _ value: String) throws(StartupError) {
        let location = "--\(option.rawValue) \(value)"
        do {
            switch option {
            case .blockdev:
                add(location, .addBlockdev(try BlockdevOptions(Keyval.input(value, impliedKey: "driver"))))
            case .export:
                add(location, .addExport(try BlockExportOptions(Keyval.input(value, impliedKey: "type"))))
            case .nbdServer:
                add(location, .startNBDServer(try NBDServerArguments.decode(Keyval.input(value))))
            case .chardev:
                let input = try Keyval.input(ShortBooleans.expand(value), impliedKey: "backend")
                try addChardev(ChardevOptions(input), location)
            case .monitor: try addMonitor(value, location)
            case .object:
                add(location, .addObject(try ObjectOptions(Keyval.input(value, impliedKey: "qom-type"))))
            case .pidfile: plan.pidFile = value
            case .allowBacking: plan.allowedBackingFolders.append(value)
            case .guestAtExit: plan.guestAtExit = try GuestAtExit(QAPIInput(.string(value)))
            case .name: try setName(value)
            case .endWithParent:
                guard let parent = Int32(value), parent > 0 else {
                    throw StartupError(location, "A process ID is expected")
                }
                plan.parent = parent
            case .config:
                let configuration = try Configuration.read(path: value)
                if let name = configuration.name { try setName(name) }
                if let pidFile = configuration.pidFile { plan.pidFile = pidFile }
                plan.allowedBackingFolders += configuration.allowedBackingFolders
                if let guestAtExit = configuration.guestAtExit { plan.guestAtExit = guestAtExit }
                for step in configuration.steps { try addConfigured(step) }
            case .help, .version, .daemonize, .faultPoints: break
            }
        } catch let error as StartupError {
            throw error
        } catch {
            throw StartupError(location, "\(error)")
        }
    }

    private mutating func add(_ location: String, _ action: StartupAction) {
        plan.steps.append(StartupStep(location: location, action: action))
    }

    /// What a configuration file asks for obeys the same rules.
    private mutating func addConfigured(_ step: StartupStep) throws(StartupError) {
        do {
            switch step.action {
            case .addChardev(let options): try addChardev(options, step.location)
            case .addMonitor(let options): try addMonitor(options, step.location)
            default: plan.steps.append(step)
            }
        } catch {
            throw StartupError(step.location, error.description)
        }
    }

    private mutating func addChardev(_ options: ChardevOptions, _ location: String) throws(QMPError) {
        guard chardevs.insert(options.id).inserted else {
            throw QMPError(.genericError, "Duplicate ID '\(options.id)' for chardev")
        }
        if options.backend == .standardStreams {
            if hasStandardStreams {
                throw QMPError(.genericError, "cannot use stdio by multiple character devices")
            }
            hasStandardStreams = true
        }
        add(location, .addChardev(options))
    }

    private mutating func addMonitor(_ value: String, _ location: String) throws(QMPError) {
        var members = try QAPIObjectInput(Keyval.input(ShortBooleans.expand(value), impliedKey: "chardev"))
        let options = MonitorOptions(
            id: try members.optional("id"), chardev: try members.required("chardev"),
            isPretty: try Self.decodeMode(&members))
        try members.finish()
        try addMonitor(options, location)
    }

    /// Takes `mode` and `pretty`.
    private static func decodeMode(_ members: inout QAPIObjectInput) throws(QMPError) -> Bool {
        let mode: String = try members.optional("mode") ?? "control"
        if mode == "readline" { throw QMPError(.genericError, "Only QMP is supported: use mode=control") }
        guard mode == "control" else {
            throw QMPError(.genericError, "Parameter 'mode' does not accept value '\(mode)'")
        }
        return try members.optional("pretty") ?? false
    }

    private mutating func addMonitor(_ options: MonitorOptions, _ location: String) throws(QMPError) {
        guard chardevs.contains(options.chardev) else {
            throw QMPError(.genericError, "chardev \"\(options.chardev)\" not found: give its --chardev before")
        }
        if let id = options.id, !monitors.insert(id).inserted {
            throw QMPError(.genericError, "Duplicate ID '\(id)' for monitor")
        }
        guard usedChardevs.insert(options.chardev).inserted else {
            throw QMPError(.genericError, "Device '\(options.chardev)' is in use")
        }
        add(location, .addMonitor(options))
    }

    private mutating func setName(_ name: String) throws(StartupError) {
        guard AgentName.isValid(name) else { throw StartupError("--name \(name)", AgentName.rule) }
        if let other = plan.name, other != name {
            throw StartupError("--name \(name)", "The agent already has the name '\(other)'")
        }
        plan.name = name
    }
}

/// QEMU's short form of switches, in `--chardev` and `--monitor`: `server` for `server=on`, `nowait` for `wait=off`.
enum ShortBooleans {
    static let names: Set<String> = ["server", "wait", "delay", "nodelay", "pretty", "signal"]

    static func expand(_ text: String) -> String {
        if text.utf8.first == UInt8(ascii: "{") { return text }
        // An item never begins inside a value: a doubled comma leaves an empty piece, which no switch is.
        let pieces = text.split(separator: ",", omittingEmptySubsequences: false)
        let expanded = pieces.enumerated().map { index, piece -> String in
            let word = String(piece)
            let followsDoubledComma = index > 0 && pieces[index - 1].isEmpty
            if index == 0 || followsDoubledComma { return word }
            if names.contains(word) { return "\(word)=on" }
            if word.hasPrefix("no"), names.contains(String(word.dropFirst(2))) { return "\(word.dropFirst(2))=off" }
            return word
        }
        return expanded.joined(separator: ",")
    }
}
