import LinuxSystem

/// Finds running agents by their runtime folders.
enum AgentLocator {
    /// Where agents of this user keep their sockets.
    static var base: String {
        if let folder = ProcessControl.environment("COLDFRAME_RUNTIME_DIR") { return folder }
        if ProcessControl.effectiveUserID == 0 { return "/run/coldframe" }
        return (ProcessControl.environment("XDG_RUNTIME_DIR") ?? "/run/user/\(ProcessControl.effectiveUserID)")
            + "/coldframe"
    }

    static func socketPath(_ name: String) -> String { "\(base)/\(name)/qmp.sock" }

    /// Names of all agents that have a socket, in order; one of them may be dead.
    static func names() -> [String] {
        let names = (try? Files.listDirectory(base)) ?? []
        return names.filter { Files.exists(socketPath($0)) }.sorted()
    }
}
