import ColdframeKit
import Logging
import QMPWire

@testable import AgentCore

/// Runs `body` with an agent of all modules, without a name, which is stopped afterwards.
@AgentActor
func withAgent(_ body: @AgentActor (Agent) async throws -> Void) async throws {
    let agent = try Agent(
        Agent.Configuration(
            name: nil, allowedBackingFolders: [],
            logger: Logger(label: "conformance") { _ in SwiftLogNoOpLogHandler() }),
        modules: ModulesUnderTest.all)
    do { try await body(agent) } catch {
        await agent.stop(endsGuest: true)
        throw error
    }
    await agent.stop(endsGuest: true)
}
