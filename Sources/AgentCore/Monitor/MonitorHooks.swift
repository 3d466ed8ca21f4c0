import ColdframeKit
import QMPWire

/// What the monitor asks of the rest of the core.
public struct MonitorHooks: Sendable {
    /// A command that the agent has is the guest's with these arguments.
    public var isGuests: @Sendable @AgentActor (String, JSONObject) -> Bool
    /// Carries out a command that the agent does not own: passes it to the guest. nil, or a nil result: there is no
    /// guest, and the command does not exist.
    public var passThrough: (@Sendable @AgentActor (String, JSONObject) async throws -> JSONValue?)?
    /// Names of the guest's commands, for `query-commands`.
    public var guestCommands: @Sendable @AgentActor () async -> [String]
    /// The guest's `query-qmp-schema`.
    public var guestSchema: @Sendable @AgentActor () async -> [JSONValue]
    /// Ends the agent, with or without its guest; called after the reply to `quit`.
    public var quit: @Sendable @AgentActor (_ endsGuest: Bool) -> Void

    public init(
        isGuests: @escaping @Sendable @AgentActor (String, JSONObject) -> Bool = { _, _ in false },
        passThrough: (@Sendable @AgentActor (String, JSONObject) async throws -> JSONValue?)? = nil,
        guestCommands: @escaping @Sendable @AgentActor () async -> [String] = { [] },
        guestSchema: @escaping @Sendable @AgentActor () async -> [JSONValue] = { [] },
        quit: @escaping @Sendable @AgentActor (_ endsGuest: Bool) -> Void = { _ in }
    ) {
        self.isGuests = isGuests
        self.passThrough = passThrough
        self.guestCommands = guestCommands
        self.guestSchema = guestSchema
        self.quit = quit
    }
}
