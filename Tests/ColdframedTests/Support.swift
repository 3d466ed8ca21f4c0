import QAPI

@testable import coldframed

/// Parses a command line with all modules installed.
func parse(_ arguments: String...) throws -> StartupPlan {
    BranchTable.install(Modules.all.map(\.schema))
    return try CommandLineParser.parse(arguments: arguments)
}

/// The text of the error of a command line that must be refused.
func refusal(_ arguments: String...) -> String? {
    BranchTable.install(Modules.all.map(\.schema))
    do {
        _ = try CommandLineParser.parse(arguments: arguments)
        return nil
    } catch {
        return error.description
    }
}

/// The text of the error of a configuration that must be refused.
func refusal(configuration text: String) -> String? {
    BranchTable.install(Modules.all.map(\.schema))
    do {
        _ = try Configuration.parse(Array(text.utf8), file: "t.toml")
        return nil
    } catch {
        return error.description
    }
}

func configuration(_ text: String) throws -> Configuration {
    BranchTable.install(Modules.all.map(\.schema))
    return try Configuration.parse(Array(text.utf8), file: "t.toml")
}

extension StartupAction {
    /// Its kind in one word, for orders.
    var kind: String {
        switch self {
        case .addObject: "object"
        case .addBlockdev: "blockdev"
        case .addChardev: "chardev"
        case .addMonitor: "monitor"
        case .startNBDServer: "nbd-server"
        case .addExport: "export"
        case .addGuest: "guest"
        case .addSnapshotExport: "snapshot-export"
        }
    }
}
