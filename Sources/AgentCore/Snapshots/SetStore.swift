import ColdframeKit
import LinuxSystem
import QMPWire

/// What the agent knows of its sets beside what stands in the images: the machine that a state belongs to.
///
/// One JSON file per set, `<state>/sets/<uuid>.json`, replaced atomically. Any thread; calls block on the disk.
struct SetStore: Sendable {
    private let folder: String

    init(stateDirectory: String) throws(ColdframeError) {
        folder = try AgentDirectories.make(stateDirectory + "/sets")
    }

    /// What a set's file says.
    struct Description: Sendable, Equatable {
        var tag: String
        var way: String
        var wasRunning: Bool
        var machine: MachineIdentity
        var pauseNanoseconds: UInt64?
    }

    func write(_ description: Description, uuid: String) throws(ColdframeError) {
        var object: JSONObject = [
            "tag": .string(description.tag), "way": .string(description.way),
            "was-running": .bool(description.wasRunning),
            "machine": .string(description.machine.machineType),
            "vmm-version": .string(description.machine.vmmVersion),
            "memory": JSONValue(description.machine.memoryByteCount),
            "command": .array(description.machine.commandLine.map { .string($0) }),
        ]
        if let pause = description.pauseNanoseconds { object["pause-ns"] = JSONValue(pause) }
        var bytes: [UInt8] = []
        JSONWriter.pretty(.object(object), into: &bytes)
        do {
            try Files.replaceAtomically(path(uuid), contents: bytes)
        } catch {
            throw ColdframeError(error, "Could not record set \(uuid)")
        }
    }

    /// nil if the agent has no record of the set.
    func read(uuid: String) -> Description? {
        guard let bytes = try? Files.readAll(path(uuid), limit: 1 << 20),
            let json = try? JSONParser.parse(String(decoding: bytes, as: UTF8.self)),
            let tag = json["tag"]?.stringValue, let way = json["way"]?.stringValue,
            let wasRunning = json["was-running"]?.boolValue, let machine = json["machine"]?.stringValue,
            let version = json["vmm-version"]?.stringValue, let memory = json["memory"]?.uint64Value,
            let command = json["command"]?.arrayValue?.compactMap(\.stringValue)
        else { return nil }
        return Description(
            tag: tag, way: way, wasRunning: wasRunning,
            machine: MachineIdentity(
                machineType: machine, vmmVersion: version, commandLine: command, memoryByteCount: memory),
            pauseNanoseconds: json["pause-ns"]?.uint64Value)
    }

    /// The set is gone. A file that cannot be removed does no harm: its UUID is never used again.
    func remove(uuid: String) {
        try? Files.unlink(path(uuid))
    }

    private func path(_ uuid: String) -> String { "\(folder)/\(uuid).json" }
}
