import ColdframeKit
import QAPI
import QMPWire

/// The commands of the agent and its modules, by name.
@AgentActor
public final class CommandTable: CommandRegistry {
    /// A command whose arguments were read and that is ready to start.
    struct Prepared: Sendable {
        /// The names that the command holds while it runs.
        let touches: Set<String>
        let run: @Sendable @AgentActor () async throws -> JSONValue
    }

    struct Entry: Sendable {
        let allowsOutOfBand: Bool
        /// Reads the arguments; what is wrong with them is the command's error.
        let prepare: @Sendable (JSONObject) throws(QMPError) -> Prepared
    }

    private var entries: [String: Entry] = [:]
    /// Writes down what commands make and take away; nil for an agent without a name.
    var recorder: StateRecorder?

    public nonisolated init() {}

    public func register<C: QAPICommand>(
        _ command: C.Type, touches: @escaping @Sendable (C.Arguments) -> Set<String>,
        _ handler: @escaping @Sendable @AgentActor (C.Arguments) async throws -> C.Result
    ) {
        precondition(entries[C.name] == nil, "command \(C.name) is registered twice")
        entries[C.name] = Entry(allowsOutOfBand: C.allowsOutOfBand) { (object) throws(QMPError) in
            let arguments = try C.Arguments(QAPIInput(.object(object)))
            return Prepared(touches: touches(arguments)) { [weak self] in
                guard let recorder = self?.recorder else { return try await handler(arguments).json }
                return try await recorder.recording(C.name, object) { try await handler(arguments).json }
            }
        }
    }

    /// Sorted.
    public var names: [String] { entries.keys.sorted() }

    func entry(_ name: String) -> Entry? { entries[name] }

    /// Runs a command as if a client had sent it, without waiting for the names it touches: for configuration and
    /// recorded state.
    public func execute(_ name: String, _ arguments: JSONObject) async throws(QMPError) -> JSONValue {
        guard let entry = entries[name] else { throw Self.notFound(name) }
        let prepared = try entry.prepare(arguments)
        do {
            return try await prepared.run()
        } catch {
            throw Self.wireError(error)
        }
    }

    nonisolated static func notFound(_ name: String) -> QMPError {
        QMPError(.commandNotFound, "The command \(name) has not been found")
    }

    /// What a client is told of an error.
    nonisolated static func wireError(_ error: any Error) -> QMPError {
        error as? QMPError ?? ColdframeError(wrapping: error).wireError
    }
}
