import ColdframeKit
import QAPI
import QMPWire

@testable import AgentCore

/// The jobs that a simulation starts, with options by chance.
extension JobSimulation {
    func stream() async throws {
        let (asked, arguments) = newJob(.stream, base("base-node"), errors: ["on-error"])
        try await execute("block-stream", arguments, starting: [asked])
    }

    func commit() async throws {
        let (asked, arguments) = newJob(
            .commit, base("top-node").merging(base("base-node")), errors: ["on-error"])
        try await execute("block-commit", arguments, starting: [asked])
    }

    func mirror() async throws {
        let (asked, arguments) = newJob(
            .mirror,
            [
                "target": .string(image()), "sync": "full",
                "copy-mode": oneIn(2) ? "background" : "write-blocking",
            ], errors: ["on-source-error", "on-target-error"])
        try await execute("blockdev-mirror", arguments, starting: [asked])
    }

    func backup() async throws {
        let (asked, arguments) = newBackup()
        try await execute("blockdev-backup", arguments, starting: [asked])
    }

    func newBackup() -> (AskedJob, JSONObject) {
        newJob(
            .backup, ["target": .string(image()), "sync": oneIn(3) ? "none" : "full"],
            errors: ["on-source-error", "on-target-error"])
    }

    /// - Parameter errors: the options that say what is done about errors: of both sides, or of each.
    private func newJob(
        _ type: JobType, _ more: JSONObject, errors: [String]
    ) -> (AskedJob, JSONObject) {
        jobCount += 1
        var asked = AskedJob(id: "j\(jobCount)", type: type)
        var arguments = more
        arguments["job-id"] = .string(asked.id)
        arguments["device"] = .string(image())
        for name in errors where !oneIn(3) {
            let policy = [BlockdevOnError.report, .ignore, .stop, .enospc][chance.next(below: 4)]
            arguments[name] = .string(policy.rawValue)
            if name != "on-target-error" { asked.onRead = policy }
            if name != "on-source-error" { asked.onWrite = policy }
        }
        if oneIn(4) { (asked.autoFinalize, arguments["auto-finalize"]) = (false, false) }
        if oneIn(4) { (asked.autoDismiss, arguments["auto-dismiss"]) = (false, false) }
        if oneIn(3) { arguments["speed"] = speed() }
        return (asked, arguments)
    }
}

extension JSONObject {
    fileprivate func merging(_ other: JSONObject) -> JSONObject {
        var merged = self
        for (key, value) in other { merged[key] = value }
        return merged
    }
}
