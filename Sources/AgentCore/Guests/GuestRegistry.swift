import ColdframeKit
import QAPI

/// The agent's guest, of which there is at most one: `guest-add`, `guest-del`, `query-guest`.
@AgentActor
final class GuestRegistry {
    private(set) var guest: (any Guest)?
    private var isBusy = false
    private let activity = Activity()
    /// Ids of guests that ended while they were being added or removed.
    private var deadIDs: Set<String> = []
    private let factories: [String: any GuestFactory]
    /// The job that works on the guest, or nil.
    private let user: @AgentActor () -> String?

    init(factories: [any GuestFactory], user: @escaping @AgentActor () -> String?) {
        self.factories = Dictionary(factories.map { ($0.driverName, $0) }, uniquingKeysWith: { first, _ in first })
        self.user = user
    }

    func add(_ options: GuestOptions, services: any AgentServices) async throws {
        try await add(options, services) { factory in try await factory.add(options, services: services) }
    }

    /// Takes over the guest of an earlier agent. False if it has ended.
    func takeOver(_ options: GuestOptions, services: any AgentServices) async throws -> Bool {
        try await add(options, services) { factory in try await factory.takeOver(options, services: services) }
    }

    @discardableResult
    private func add(
        _ options: GuestOptions, _ services: any AgentServices,
        _ obtain: (any GuestFactory) async throws -> (any Guest)?
    ) async throws -> Bool {
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
        try activity.begin()
        isBusy = true
        defer {
            isBusy = false
            deadIDs = []
            activity.end()
        }
        guard let added = try await obtain(factory) else { return false }
        guard !deadIDs.contains(added.id) else {
            throw ColdframeError(.peer, "Guest '\(added.id)' ended as soon as it was started")
        }
        guest = added
        return true
    }

    /// Unless forced, a guest that a snapshot job works on stays.
    func remove(id: String?, force: Bool) async throws {
        guard let leaving = guest, !isBusy else {
            throw ColdframeError(.notFound, "This agent has no guest")
        }
        guard id == nil || id == leaving.id else {
            throw ColdframeError(.notFound, "Guest '\(id ?? "")' is not found")
        }
        if !force, let user = user() {
            throw ColdframeError(.busy, "Guest '\(leaving.id)' is busy: job '\(user)' works on it")
        }
        try activity.begin()
        try await remove(leaving, force: force)
    }

    private func remove(_ leaving: any Guest, force: Bool) async throws {
        isBusy = true
        defer {
            isBusy = false
            deadIDs = []
            activity.end()
        }
        do {
            try await leaving.remove(force: force)
        } catch {
            if deadIDs.contains(leaving.id) { guest = nil }
            throw error
        }
        guest = nil
    }

    /// Whether the guest of these options, which an earlier agent had, still runs.
    func survives(_ options: GuestOptions, services: any AgentServices) async throws -> Bool {
        try await factories[options.driver]?.survives(options, services: services) ?? false
    }

    /// A new process of the guest takes the place of the old one, unless that was taken away meanwhile.
    func replace(_ old: any Guest, with new: any Guest) {
        if guest === old { guest = new }
    }

    /// See `GuestFactory`.
    func settleReplacement(
        _ options: GuestOptions, slot: Int, isCommitted: Bool, services: any AgentServices
    ) async throws {
        try await factories[options.driver]?.settleReplacement(
            options, slot: slot, isCommitted: isCommitted, services: services)
    }

    /// The agent's end: waits for what is under way, then lets the guest go on without an agent, or ends it.
    func close(endsGuest: Bool) async throws {
        await activity.close()
        guard let leaving = guest else { return }
        defer { guest = nil }
        if endsGuest {
            try await leaving.remove(force: true)
        } else {
            await leaving.leave()
        }
    }

    /// The module says that the guest has ended by itself; its disks stay.
    func died(id: String) {
        if isBusy {
            deadIDs.insert(id)
        } else if guest?.id == id {
            guest = nil
        }
    }
}
