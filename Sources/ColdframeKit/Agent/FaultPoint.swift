import LinuxSystem

/// A named place in an operation over several files at which tests kill the agent or make it fail.
///
/// `COLDFRAME_FAULT=name=kill` ends the process there as kill -9 does, `name=error` throws, `name=pause:MS` waits; several
/// are separated by commas. Without the variable a point costs one test of a constant.
public enum FaultPoint {
    /// Passes the point, or does what the environment says.
    public static func pass(_ name: String) throws(ColdframeError) {
        guard let table, let action = table[name] else { return }
        switch action {
        case .kill: ProcessControl.killSelf()
        case .error: throw ColdframeError(.io, "Fault point '\(name)' was told to fail")
        case .pause(let milliseconds): SystemThread.sleep(milliseconds: milliseconds)
        }
    }

    private enum Action: Sendable {
        case kill, error
        case pause(Int)
    }

    private static let table: [String: Action]? = {
        guard let text = ProcessControl.environment("COLDFRAME_FAULT"), !text.isEmpty else { return nil }
        var table: [String: Action] = [:]
        for item in text.split(separator: ",") {
            let parts = item.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { continue }
            switch parts[1] {
            case "kill": table[String(parts[0])] = .kill
            case "error": table[String(parts[0])] = .error
            default:
                let words = parts[1].split(separator: ":")
                if words.count == 2, words[0] == "pause", let milliseconds = Int(words[1]) {
                    table[String(parts[0])] = .pause(milliseconds)
                }
            }
        }
        return table
    }()
}
