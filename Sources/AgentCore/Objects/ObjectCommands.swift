import ColdframeKit
import QAPI
import QMPWire

/// Registers the commands on objects.
@AgentActor
func registerObjectCommands(_ registry: any CommandRegistry, agent: Agent) {
    let objects = agent.objects
    registry.register(ObjectAddCommand.self, touches: { [$0.id] }) { options in
        try objects.add(options)
        return QAPIEmpty()
    }
    registry.register(ObjectDelCommand.self, touches: { [$0.id] }) { arguments in
        try objects.remove(arguments.id)
        return QAPIEmpty()
    }
    registry.register(QomGetCommand.self) { arguments in
        try objects.property(arguments.property, of: arguments.path)
    }
    registry.register(QomSetCommand.self, touches: { [$0.path] }) { arguments in
        let (object, before) = try objects.setProperty(arguments.property, of: arguments.path, to: arguments.value)
        do {
            // A restarted agent makes it as it is now.
            try await agent.recorder?.follow(object.options)
        } catch {
            if let before { _ = try? object.setProperty(arguments.property, QAPIInput(before)) }
            throw error
        }
        return QAPIEmpty()
    }
}

extension ObjectRegistry {
    /// Whether a command is about an object of the guest, where there is one: its kinds of objects and the ids of its
    /// objects are all that are not the agent's.
    func leavesToGuest(_ command: String, _ arguments: JSONObject) -> Bool {
        switch command {
        case "object-add": arguments["qom-type"]?.stringValue.map { !isKind($0) } ?? false
        case "object-del": arguments["id"]?.stringValue.map { find($0) == nil } ?? false
        case "qom-get", "qom-set": arguments["path"]?.stringValue.map { find(path: $0) == nil } ?? false
        default: false
        }
    }

    /// Commands that are the agent's or the guest's by their arguments.
    nonisolated static let sharedCommands: Set = ["object-add", "object-del", "qom-get", "qom-set"]
}
