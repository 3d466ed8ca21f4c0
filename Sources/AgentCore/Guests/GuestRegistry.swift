import ColdframeKit
import QAPI

/// The agent's guest, of which there is at most one: `guest-add`, `guest-del`, `query-guest`.
@AgentActor
final class GuestRegistry {
    private(set) var guest: (any Guest)?
    private var isBusy = false
    private let factories: [String: any GuestFactory]

    init(factories: [any GuestFactory]) {
        self.factories = Dictionary(factories.map { ($0.driverName, $0) }, uniquingKeysWith: { first, _ in first })
    }

    func add(_ options: GuestOptions, services: any AgentServices) async throws {
        guard services.agentName != nil else {
            throw ColdframeError(
                .invalidArgument, "A guest needs an agent with a name: start coldframed with --name NAME")
        }
        guard guest == nil, !isBusy else {
            throw ColdframeError(.alreadyExists, "This agent has a guest already: an agent has at most one")
        }
        guard let factory = factories[options.driver] else {
            throw ColdframeError(.unsupported, "Unknown guest driver '\(options.driver)'")
        }
        isBusy = true
        defer { isBusy = false }
        guest = try await factory.add(options, services: services)
    }

    func remove(id: String?, force: Bool) async throws {
        guard let leaving = guest, !isBusy else {
            throw ColdframeError(.notFound, "This agent has no guest")
        }
        guard id == nil || id == leaving.id else {
            throw ColdframeError(.notFound, "Guest '\(id ?? "")' is not found")
        }
        isBusy = true
        defer { isBusy = false }
        try await leaving.remove(force: force)
        guest = nil
    }

    /// The module says that the guest has ended by itself; its disks stay.
    func died(id: String) {
        if guest?.id == id, !isBusy { guest = nil }
    }
}
