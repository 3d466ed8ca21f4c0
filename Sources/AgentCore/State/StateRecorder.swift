import ColdframeKit
import LinuxSystem
import Logging
import QMPWire

/// Keeps the agent's record on stable storage: a command that makes or takes away something has its reply when the record
/// says so.
@AgentActor
final class StateRecorder {
    private(set) var record: AgentRecord
    /// As an earlier agent left it.
    let inherited: AgentRecord
    let isSameBoot: Bool
    private let path: String
    private let logger: Logger
    /// What is made now is asked for by the configuration.
    var isConfiguring = false
    /// Writes follow one another: each takes the record as it is when its turn comes.
    private var writing: Task<Void, Never>?

    private nonisolated static let byteCountLimit = 16 << 20

    nonisolated init(stateDirectory: String, logger: Logger) throws(ColdframeError) {
        path = stateDirectory + "/record.json"
        self.logger = logger
        let bootID = (try? Files.readAll("/proc/sys/kernel/random/boot_id", limit: 128)) ?? []
        let boot = String(decoding: bootID.filter { $0 > 32 }, as: UTF8.self)
        var record = AgentRecord()
        if Files.exists(path) {
            let text: [UInt8]
            do {
                text = try Files.readAll(path, limit: Self.byteCountLimit)
            } catch {
                throw ColdframeError(error, "Could not read the agent's record '\(path)'")
            }
            do {
                record = try AgentRecord(text: text)
            } catch {
                throw ColdframeError(
                    .corrupt,
                    "The agent's record '\(path)' cannot be used: \(error). Move it away to start with the configuration "
                        + "alone")
            }
        }
        inherited = record
        isSameBoot = record.bootID == boot
        var next = AgentRecord()
        next.bootID = boot
        self.record = next
    }

    // MARK: What commands do

    /// Runs a command, and records what it makes or takes away. A guest is recorded before it is made: it outlives an agent
    /// that is killed meanwhile.
    func recording<T>(
        _ command: String, _ arguments: JSONObject, _ body: @AgentActor () async throws -> T
    ) async throws -> T {
        let isFirst = command == "guest-add" && record.guest == nil
        if isFirst { await note(command, arguments) }
        do {
            let result = try await body()
            if !isFirst { await note(command, arguments) }
            return result
        } catch {
            if isFirst { await guestEnded() }
            throw error
        }
    }

    /// Exports show another node from now on. On stable storage before their clients write there.
    func exportsMove(_ exportIDs: Set<String>, toNode nodeName: String) async {
        for item in record.items where item.kind == .export && exportIDs.contains(item.name) {
            if item.isConfigured {
                logger.warning(
                    "export '\(item.name)' shows node '\(nodeName)' from now on; the configuration names another, which a start without a living guest follows"
                )
            }
            // Behind the node, which may have been made after it.
            record.add(item.showing(nodeName: nodeName))
        }
        if isWritten { await write() }
    }

    func guestEnded() async { await note("guest-del", [:]) }

    private func note(_ command: String, _ arguments: JSONObject) async {
        if let item = RecordedItem(command: command, arguments: arguments, isConfigured: isConfiguring) {
            record.add(item)
        } else if let removal = RecordedRemoval(command: command, arguments: arguments) {
            record.remove(removal)
        } else {
            return
        }
        // While the agent starts, the earlier record stays: it knows what this one has not come to.
        if isWritten { await write() }
    }

    // MARK: The file

    private var isWritten = false

    /// What the earlier agent had given up under the guest that is taken over stays so.
    func takeRemoved() { record.takeRemoved(from: inherited) }

    /// The start is over: from here on the file holds this agent's record.
    func begin() async {
        isWritten = true
        await write()
    }

    /// Something that is there without a command, or that could not be made again and is kept for the next start.
    func keep(_ item: RecordedItem) { record.add(item) }

    private func write() async {
        let previous = writing
        let task = Task { @AgentActor in
            await previous?.value
            await write(record)
        }
        writing = task
        await task.value
    }

    private func write(_ record: AgentRecord) async {
        let (path, text, logger) = (path, record.text, logger)
        await BlockingPool.shared.run {
            do {
                try Files.replaceAtomically(path, contents: text)
            } catch {
                logger.error("what was changed just now will be forgotten by a restart: \(error)")
            }
        }
    }
}
