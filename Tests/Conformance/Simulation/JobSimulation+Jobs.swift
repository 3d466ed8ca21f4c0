import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

@testable import AgentCore

/// The jobs that a simulation starts, with options by chance, and what it asks of them.
extension JobSimulation {
    private static let bothErrors = ["on-source-error", "on-target-error"]

    func stream() async throws {
        let base: JSONObject = [oneOf(["base-node", "base-node", "bottom"]): .string(image())]
        let (asked, arguments) = newJob(.stream, oneIn(2) ? base : [:], errors: ["on-error"])
        try await execute("block-stream", arguments, starting: [asked])
    }

    func commit() async throws {
        var more: JSONObject = [:]
        for member in ["top-node", "base-node"] where oneIn(2) { more[member] = .string(image()) }
        let (asked, arguments) = newJob(.commit, more, errors: ["on-error"])
        try await execute("block-commit", arguments, starting: [asked])
    }

    func mirror() async throws {
        let (asked, options) = newMirror([
            "target": .string(idleImage()), "sync": "full", "copy-mode": oneIn(2) ? "background" : "write-blocking",
        ])
        var arguments = options
        if let source = arguments["device"]?.stringValue, quorums[source] != nil, oneIn(2) {
            arguments["replaces"] = node(source)?.children.randomElement(using: &chance)?.node.map { .string($0.name) }
        }
        try await execute("blockdev-mirror", arguments, starting: [asked])
    }

    func newMirror(_ arguments: JSONObject) -> (AskedJob, JSONObject) {
        var arguments = arguments
        if oneIn(4) { arguments["granularity"] = .integer(oneOf([4096, 65536, 1 << 20])) }
        return newJob(.mirror, arguments, errors: Self.bothErrors)
    }

    func backup() async throws {
        let (asked, arguments) = newBackup()
        try await execute("blockdev-backup", arguments, starting: [asked])
    }

    /// - Parameter target: the arguments that say where to.
    func newBackup(into target: JSONObject? = nil) -> (AskedJob, JSONObject) {
        let sync = oneOf(["full", "full", "top", "none", "incremental", "bitmap"])
        var more: JSONObject = target ?? ["target": .string(idleImage())]
        more["sync"] = .string(sync)
        if ["incremental", "bitmap"].contains(sync) { more["bitmap"] = .string(bitmap()) }
        if sync == "bitmap" { more["bitmap-mode"] = oneOf(["on-success", "never", "always"]) }
        if oneIn(8) { more["compress"] = true }
        return newJob(.backup, more, errors: Self.bothErrors)
    }

    /// A file that may be an image later, or one that is open and must not be touched.
    func createImage() async throws {
        var asked = newJob(.create)
        let name: String
        if oneIn(3) {
            name = image()
            overwritten.insert(name)
        } else {
            imageCount += 1
            name = "n\(imageCount)"
            try tools.write([], to: name)
            newImages[asked.id] = name
        }
        (asked.autoDismiss, asked.autoFinalize) = (false, true)
        let options: JSONObject = [
            "driver": "qcow2", "file": file(of: name), "size": 1_048_576, "cluster-size": oneOf([4096, 65536]),
            "version": oneOf(["v2", "v3"]),
        ]
        try await execute(
            "blockdev-create", ["job-id": .string(asked.id), "options": .object(options)], starting: [asked])
    }

    /// Another version of the format, or other widths in it: the driver is closed and another opened below whoever is there.
    func amend() async throws {
        var asked = newJob(.amend)
        (asked.autoDismiss, asked.autoFinalize) = (false, true)
        var options: JSONObject = ["driver": "qcow2"]
        if oneIn(2) { options["version"] = oneOf(["v2", "v3"]) }
        if oneIn(3) { options["refcount-bits"] = oneOf([8, 16, 64]) }
        if oneIn(3) { options["lazy-refcounts"] = .bool(oneIn(2)) }
        try await execute(
            "x-blockdev-amend",
            ["job-id": .string(asked.id), "node-name": .string(image()), "options": .object(options)],
            starting: [asked])
    }

    private func newJob(_ type: JobType) -> AskedJob {
        jobCount += 1
        return AskedJob(id: "j\(jobCount)", type: type)
    }

    /// One on a node.
    /// - Parameter errors: the options that say what is done about errors: of both sides, or of each.
    private func newJob(_ type: JobType, _ more: JSONObject, errors: [String]) -> (AskedJob, JSONObject) {
        var asked = newJob(type)
        var arguments = more
        arguments["job-id"] = .string(asked.id)
        arguments["device"] = .string(usedImage())
        for name in errors where !oneIn(3) {
            let policy = oneOf([BlockdevOnError.report, .ignore, .stop, .enospc])
            arguments[name] = .string(policy.rawValue)
            if name != "on-target-error" { asked.onRead = policy }
            if name != "on-source-error" { asked.onWrite = policy }
        }
        if oneIn(4) { (asked.autoFinalize, arguments["auto-finalize"]) = (false, false) }
        if oneIn(4) { (asked.autoDismiss, arguments["auto-dismiss"]) = (false, false) }
        if oneIn(4) { arguments["speed"] = speed() }
        return (asked, arguments)
    }

    private func speed() -> JSONValue { .integer(oneOf([0, 1, 1 << 18, 1 << 20, 1 << 22, -1])) }

    // MARK: Verbs

    private static let verbs = ["pause", "resume", "cancel", "complete", "finalize", "dismiss", "set-speed"]

    /// As a rule what makes sense for a job that is there; any verb of either family of one that may be gone otherwise.
    func askOfJob() async throws {
        var (id, verb) = ("j\(max(1, jobCount - chance.next(below: 5)))", oneOf(Self.verbs))
        let current = watch.current
        if !current.isEmpty, !oneIn(4) {
            let job = oneOf(current)
            id = job.asked.id
            switch job.status {
            case .concluded: verb = "dismiss"
            case .pending: verb = oneOf(["finalize", "finalize", "cancel"])
            case _ where job.isPaused: verb = oneOf(["resume", "resume", "cancel"])
            case .ready: verb = oneOf(["complete", "complete", "complete", "cancel", "pause"])
            default: verb = oneOf(["set-speed", "set-speed", "pause", "cancel", verb])
            }
        }
        if verb != "set-speed", oneIn(2) {
            try await execute("job-\(verb)", ["id": .string(id)])
            return
        }
        var arguments: JSONObject = [["finalize", "dismiss"].contains(verb) ? "id" : "device": .string(id)]
        if verb == "set-speed" { arguments["speed"] = speed() }
        if verb == "cancel", oneIn(3) { arguments["force"] = true }
        try await execute("block-job-\(verb)", arguments)
    }
}
