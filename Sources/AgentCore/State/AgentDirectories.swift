import ColdframeKit
import LinuxSystem

/// Where a named agent keeps its sockets and its state.
///
/// The base folders are `/run/coldframe` and `/var/lib/coldframe` for root, the XDG ones for others;
/// `COLDFRAME_RUNTIME_DIR` and `COLDFRAME_STATE_DIR` replace them.
public struct AgentDirectories: Sendable {
    /// Sockets and pid files; gone after a reboot. 0700.
    public let runtime: String
    /// The journal, sets and records; outlives the host. 0700.
    public let state: String

    /// Makes both folders of agent `name`.
    public init(name: String) throws(ColdframeError) {
        guard AgentName.isValid(name) else {
            throw ColdframeError(.invalidArgument, "Invalid agent name '\(name)': \(AgentName.rule)")
        }
        runtime = try Self.make(try Self.runtimeBase() + "/" + name)
        state = try Self.make(try Self.stateBase() + "/" + name)
    }

    private static func runtimeBase() throws(ColdframeError) -> String {
        if let base = ProcessControl.environment("COLDFRAME_RUNTIME_DIR") { return base }
        if ProcessControl.effectiveUserID == 0 { return "/run/coldframe" }
        guard let base = ProcessControl.environment("XDG_RUNTIME_DIR") else {
            throw ColdframeError(
                .notFound, "XDG_RUNTIME_DIR is not set: set it, or COLDFRAME_RUNTIME_DIR, to a folder of your own")
        }
        return base + "/coldframe"
    }

    private static func stateBase() throws(ColdframeError) -> String {
        if let base = ProcessControl.environment("COLDFRAME_STATE_DIR") { return base }
        if ProcessControl.effectiveUserID == 0 { return "/var/lib/coldframe" }
        if let base = ProcessControl.environment("XDG_STATE_HOME") { return base + "/coldframe" }
        guard let home = ProcessControl.environment("HOME") else {
            throw ColdframeError(
                .notFound, "HOME is not set: set it, or COLDFRAME_STATE_DIR, to a folder of your own")
        }
        return home + "/.local/state/coldframe"
    }

    /// A folder below one of the two.
    static func make(_ path: String) throws(ColdframeError) -> String {
        do {
            try Files.mkdirWithParents(path, mode: 0o700)
        } catch {
            throw ColdframeError(error, "Could not make folder '\(path)'")
        }
        return path
    }
}
