import ColdframeKit
import QAPI

/// Registers the commands on the guest.
@AgentActor
func registerGuestCommands(_ registry: any CommandRegistry, agent: Agent) {
    registry.register(GuestAddCommand.self) { options in
        try await agent.guests.add(options, services: agent.services)
        if let guest = agent.guests.guest { await agent.settle(guest) }
        return QAPIEmpty()
    }
    registry.register(GuestDelCommand.self) { arguments in
        try await agent.guests.remove(id: arguments.id, force: arguments.force ?? false)
        return QAPIEmpty()
    }
    registry.register(QueryGuestCommand.self) { _ in
        guard let guest = agent.guests.guest else {
            throw ColdframeError(.notFound, "This agent has no guest")
        }
        return await guest.information()
    }
}
