import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// Something that the configuration or the command line asks for.
public struct StartItem: Sendable {
    /// Where it was asked for, for errors.
    public var location: String
    public var command: String
    public var arguments: JSONObject

    public init(location: String, command: String, arguments: JSONObject) {
        self.location = location
        self.command = command
        self.arguments = arguments
    }
}

/// A start that went wrong.
public struct StartFailure: Error, CustomStringConvertible {
    public let description: String
}

extension Agent {
    /// Makes what is configured and what is recorded, through the agent's own commands. An agent with a name finds its guest
    /// again if that still runs.
    ///
    /// - Throws: `StartFailure` where something that is configured cannot be made, or the guest not be taken over.
    public func start(_ configured: [StartItem]) async throws {
        guard let recorder else {
            for item in configured { try await carryOut(item.command, item.arguments, at: item.location) }
            return
        }
        let wanted = configured.compactMap {
            RecordedItem(command: $0.command, arguments: $0.arguments, isConfigured: true)
        }
        graph.takesAutomaticNames = true
        defer { graph.takesAutomaticNames = false }
        try await settleReplacements()
        let guestLives = try await findsSurvivor(recorder.inherited.guest ?? wanted.first { $0.kind == .guest })
        recovery?.awaitsGuest = guestLives
        if guestLives { recorder.takeRemoved() }
        let plan = RestartPlan(
            configured: wanted, record: recorder.inherited, guestLives: guestLives, isSameBoot: recorder.isSameBoot)
        for item in plan.deferred {
            logger.warning(
                "\(item.kind.rawValue) '\(item.name)' is configured in another way than the running guest has it: this takes effect when the guest has ended"
            )
        }
        for item in plan.items {
            let isGuest = item.kind == .guest && item.isConfigured
            let index = wanted.firstIndex { isGuest ? $0.kind == .guest : $0 == item }
            let location = index.map { configured[$0].location }
            try await make(item, at: location, recorder)
        }
        await recover()
        // Whose user could not be made stays: a client may delete it.
        for item in plan.items where item.goesWithUsers {
            if let node = graph.find(nodeName: item.name), node.uses.isEmpty { node.isMonitorOwned = true }
        }
        await recorder.begin()
    }

    private func make(_ item: RecordedItem, at location: String?, _ recorder: StateRecorder) async throws {
        recorder.isConfiguring = item.isConfigured
        defer { recorder.isConfiguring = false }
        let place = location ?? "recorded \(item.command)"
        if item.kind == .guest {
            await recover()
            if recovery?.awaitsGuest == true, try await takeOver(item, at: place, recorder) { return }
            guard item.isConfigured || !recorder.isSameBoot else {
                return logger.notice("the guest has ended while there was no agent")
            }
        }
        do {
            try await carryOut(item.command, item.arguments, at: place)
            guard item.goesWithUsers else { return }
            graph.find(nodeName: item.name)?.isMonitorOwned = false
            recorder.keep(item)
        } catch {
            // A client's node or export may be missing for a while (an image that is not mounted); the guest may not.
            guard !item.isConfigured, item.kind != .guest else { throw error }
            logger.error("\(error); it is tried again at the next start")
            recorder.keep(item)
            return
        }
    }

    /// False: it has ended since it was asked whether it runs.
    private func takeOver(_ item: RecordedItem, at place: String, _ recorder: StateRecorder) async throws -> Bool {
        do {
            let options = try GuestOptions(QAPIInput(.object(item.arguments)))
            guard try await guests.takeOver(options, services: services), let guest = guests.guest else {
                recovery?.awaitsGuest = false
                await recover()
                return false
            }
            recorder.keep(item)
            await settle(guest)
            return true
        } catch {
            throw StartFailure(description: "\(place): \(ColdframeError(wrapping: error))")
        }
    }

    private func carryOut(_ command: String, _ arguments: JSONObject, at place: String) async throws {
        do {
            _ = try await commands.execute(command, arguments)
        } catch {
            throw StartFailure(description: "\(place): \(error)")
        }
    }

    /// An agent that died in a load by replacement may have left two processes of the guest. One of them goes before
    /// anything else is done: there is one guest for the rest of the recovery.
    private func settleReplacements() async throws {
        guard let journal else { return }
        for (step, intent) in journal.interrupted {
            guard let replacement = intent.replacement else { continue }
            do {
                let options = try GuestOptions(QAPIInput(.object(replacement.guestOptions)))
                try await guests.settleReplacement(
                    options, slot: replacement.slot, isCommitted: step == .committed, services: services)
                try FaultPoint.recoveryReplaced.pass()
                // A later guest may stand in that slot: the journal must not name it any longer.
                var settled = intent
                settled.replacement = nil
                let record = settled
                try await blocking { () throws(ColdframeError) in try journal.record(step, record) }
            } catch {
                throw StartFailure(
                    description: "what the interrupted load of '\(intent.tag)' by replacement has left: "
                        + "\(ColdframeError(wrapping: error))")
            }
        }
    }

    private func findsSurvivor(_ guest: RecordedItem?) async throws -> Bool {
        guard let guest, let options = try? GuestOptions(QAPIInput(.object(guest.arguments))) else { return false }
        return try await guests.survives(options, services: services)
    }
}
