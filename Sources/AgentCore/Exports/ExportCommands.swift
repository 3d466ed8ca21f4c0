import ColdframeKit
import QAPI

/// Registers the commands on block exports.
@AgentActor
func registerExportCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(BlockExportAddCommand.self, touches: { [$0.id, $0.nodeName] }) { options in
        try await agent.exports.add(options, services: agent.services)
        return QAPIEmpty()
    }
    registry.register(BlockExportDelCommand.self, touches: { [$0.id] }) { arguments in
        try await agent.exports.remove(id: arguments.id, mode: arguments.mode)
        return QAPIEmpty()
    }
    registry.register(QueryBlockExportsCommand.self) { _ in agent.exports.information }
}
