import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

/// Keeps the agent's record on stable storage: a command that makes or takes away something has its reply when the record
/// says so.
@AgentActor
final class StateRecorder {
    private(set) var record: AgentRecord
    /// As an earlier agent left it.
    private(set) var inherited: AgentRecord
    let isSameBoot: Bool
    private let path: String
    private let logger: Logger
    /// What is made now is asked for by the configuration.
    var isConfiguring = false
    /// Writes follow one another: each takes the record as it is when its turn comes.
    private var writing: Task<Void, any Error>?

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
    /// that is killed meanwhile. What cannot be recorded is taken back, so that the client's error is the whole truth.
    func recording<T>(
        _ command: String, _ arguments: JSONObject, _ body: @AgentActor () async throws -> T
    ) async throws -> T {
        let isFirst = command == "guest-add" && record.guest == nil
        if isFirst { try await note(command, arguments) }
        let result: T
        do {
            result = try await body()
        } catch {
            if isFirst { await guestEnded() }
            throw error
        }
        if !isFirst { try await note(command, arguments) }
        return result
    }

    /// The graph has changed. On stable storage when this returns, before clients write to where it has led them. On a throw
    /// the record is as it was.
    func follow(_ shape: GraphShape) async throws {
        let before = record
        let moved = record.follow(shape)
        do {
            if isWritten { try await write() }
        } catch {
            record = before
            throw ColdframeError(wrapping: error).prefixed("How the nodes stand could not be recorded")
        }
        for (item, change) in moved where item.isConfigured {
            let later =
                item.kind == .guest
                ? "a later start does so too, unless it names a node for the disk"
                : "a start without a living guest follows it"
            logger.warning("\(change) from now on; the configuration says otherwise: \(later)")
        }
    }

    /// An object is another by now. On a throw the record is as it was.
    func follow(_ options: ObjectOptions) async throws {
        guard let item = RecordedItem(command: "object-add", arguments: options.object) else { return }
        let before = record
        record.change(item)
        do {
            if isWritten { try await write() }
        } catch {
            record = before
            throw ColdframeError(wrapping: error).prefixed("The change of object '\(options.id)' could not be recorded")
        }
    }

    /// The same for a change that an earlier agent had committed and not come to write down.
    func inherit(_ shape: GraphShape) { _ = inherited.follow(shape) }

    /// Nobody is there to be told of a failure.
    func guestEnded() async {
        do {
            try await note("guest-del", [:])
        } catch {
            logger.error("\(error)")
        }
    }

    /// Runs a command as a client's would be; for what has to be taken back.
    var execute: (@AgentActor (_ command: String, _ arguments: JSONObject) async throws -> Void)?

    private func note(_ command: String, _ arguments: JSONObject) async throws {
        if let item = RecordedItem(command: command, arguments: arguments, isConfigured: isConfiguring) {
            record.add(item)
            // While the agent starts, the earlier record stays: it knows what this one has not come to.
            guard isWritten else { return }
            do {
                try await write()
            } catch {
                try await takeBack(item, because: ColdframeError(wrapping: error))
            }
        } else if let removal = RecordedRemoval(command: command, arguments: arguments) {
            let before = record
            record.remove(removal)
            guard isWritten, record != before else { return }
            do {
                try await write()
            } catch {
                throw ColdframeError(wrapping: error).prefixed(
                    "\(command) is carried out, but a restart of the agent may bring back what is gone: the agent's record "
                        + "could not be written")
            }
        }
    }

    private func takeBack(_ item: RecordedItem, because cause: ColdframeError) async throws -> Never {
        record.forget(item)
        let refusal = cause.prefixed("The agent's record could not be written")
        // A guest has not been made yet.
        guard let (command, arguments) = item.inverse else {
            throw ColdframeError(refusal.code, "\(refusal.message). Nothing was changed", errno: refusal.errno)
        }
        do {
            try await execute?(command, arguments)
        } catch {
            throw ColdframeError(
                refusal.code,
                "\(refusal.message), so that a restart of the agent forgets \(item.kind.rawValue) '\(item.name)', which "
                    + "could not be taken back either: \(ColdframeError(wrapping: error).message)", errno: refusal.errno
            )
        }
        throw ColdframeError(
            refusal.code, "\(refusal.message). The \(item.kind.rawValue) '\(item.name)' was taken back",
            errno: refusal.errno)
    }

    // MARK: The file

    private var isWritten = false

    /// What the earlier agent had given up under the guest that is taken over stays so.
    func takeRemoved() { record.takeRemoved(from: inherited) }

    /// The start is over: from here on the file holds this agent's record.
    func begin() async {
        isWritten = true
        do {
            try await write()
        } catch {
            // The guest needs its agent more than that needs the record.
            logger.error("what has changed since the last start is not recorded: \(error)")
        }
    }

    /// Something that is there without a command, or that could not be made again and is kept for the next start.
    func keep(_ item: RecordedItem) { record.add(item) }

    private func write() async throws {
        let previous = writing
        let task = Task { @AgentActor in
            _ = await previous?.result
            try await write(record)
        }
        writing = task
        try await task.value
    }

    private func write(_ record: AgentRecord) async throws {
        let (path, text) = (path, record.text)
        try await blocking { () throws(ColdframeError) in
            do throws(SystemError) {
                try Files.replaceAtomically(path, contents: text)
            } catch {
                throw ColdframeError(error, "Could not write '\(path)'")
            }
        }
    }
}
