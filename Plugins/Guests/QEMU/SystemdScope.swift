import LinuxSystem

/// How a process leaves the agent's service when that is one of systemd's.
enum SystemdScope {
    /// Words in front of a command; empty where no systemd has started this process.
    static func prefix(description: String) -> [String] {
        // Set for services only, and its value is theirs alone.
        guard ProcessControl.environment("INVOCATION_ID") != nil,
            ProcessControl.environment("NOTIFY_SOCKET") != nil,
            ProcessControl.environment("COLDFRAME_SCOPE") != "none"
        else { return [] }
        let manager = ProcessControl.effectiveUserID == 0 ? ["--system"] : ["--user"]
        return ["systemd-run"] + manager + ["--scope", "--quiet", "--collect", "--description=\(description)", "--"]
    }
}
