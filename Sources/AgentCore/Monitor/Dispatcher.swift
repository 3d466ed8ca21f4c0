import ColdframeKit
import QAPI
import QMPWire

/// Starts the commands of all monitors on the actor, one at a time, in turn.
///
/// A monitor has one in-band command under way, so its replies keep their order. A command holds the names it touches
/// until it is done; one of another monitor that needs such a name waits, and keeps its turn, while others start. A
/// command passed to the guest holds nothing but its own monitor. Out-of-band commands wait for nobody.
@AgentActor
final class Dispatcher {
    private final class Lane {
        let connection: MonitorConnection
        /// A command that waits for a name.
        var waiting: (request: QMPRequest, prepared: CommandTable.Prepared)?
        init(_ connection: MonitorConnection) { self.connection = connection }
    }

    private let commands: CommandTable
    private let hooks: MonitorHooks
    private var lanes: [Lane] = []
    private var heldNames: Set<String> = []
    /// No command starts; requests are read and wait in their monitors' bounded queues.
    private var isPaused = false

    init(commands: CommandTable, hooks: MonitorHooks) {
        self.commands = commands
        self.hooks = hooks
    }

    /// While paused no in-band command starts, the negotiation neither.
    func setPaused(_ isPaused: Bool) {
        self.isPaused = isPaused
        while startOne() {}
    }

    /// Starts whatever can start.
    func pump(_ connection: MonitorConnection) {
        if !connection.isClosed, !lanes.contains(where: { $0.connection === connection }) {
            lanes.append(Lane(connection))
        }
        while startOne() {}
    }

    func remove(_ connection: MonitorConnection) {
        lanes.removeAll { $0.connection === connection }
        while startOne() {}  // What it waited for may be what others wait for behind it.
    }

    /// Starts the first command, in turn, that can; its monitor goes to the end.
    private func startOne() -> Bool {
        if isPaused { return false }
        var names = heldNames
        for (position, lane) in lanes.enumerated() {
            if lane.waiting == nil {
                guard let item = lane.connection.takeRequest() else { continue }
                do {
                    lane.waiting = try read(item, lane.connection)
                } catch {
                    lane.connection.send(QMPResponse.failure(error.error, id: error.id))
                    lane.connection.finishRequest()
                    toEnd(position)
                    return true
                }
            }
            guard let (request, prepared) = lane.waiting else { continue }
            guard prepared.touches.isDisjoint(with: names) else {
                // Reserved, so that a stream of later commands cannot starve this one.
                names.formUnion(prepared.touches)
                continue
            }
            lane.waiting = nil
            heldNames.formUnion(prepared.touches)
            toEnd(position)
            start(request, prepared, lane.connection)
            return true
        }
        return false
    }

    private func toEnd(_ position: Int) { lanes.append(lanes.remove(at: position)) }

    private func start(_ request: QMPRequest, _ prepared: CommandTable.Prepared, _ connection: MonitorConnection) {
        Task { @AgentActor in
            await carryOut(request, prepared, connection)
            heldNames.subtract(prepared.touches)
            connection.finishRequest()
            pump(connection)
        }
    }

    private func carryOut(
        _ request: QMPRequest, _ prepared: CommandTable.Prepared, _ connection: MonitorConnection
    ) async {
        let context = CommandContext()
        let reply: JSONValue
        do {
            let result = try await CommandContext.$current.withValue(context) { try await prepared.run() }
            reply = QMPResponse.success(result, id: request.id)
        } catch {
            reply = QMPResponse.failure(CommandTable.wireError(error), id: request.id)
        }
        connection.send(reply)
        context.replied()
    }

    // MARK: - Reading requests

    /// The command of an in-band message, its arguments checked.
    private func read(
        _ item: Result<JSONValue, QMPError>, _ connection: MonitorConnection
    ) throws(QMPEnvelopeError) -> (QMPRequest, CommandTable.Prepared) {
        let envelope: JSONValue
        switch item {
        case .success(let value): envelope = value
        case .failure(let error): throw QMPEnvelopeError(error: error, id: nil)
        }
        let request = try QMPRequest(envelope: envelope, outOfBandEnabled: connection.isOutOfBandEnabled)
        do throws(QMPError) {
            return (request, try prepare(request, connection))
        } catch {
            throw QMPEnvelopeError(error: error, id: request.id)
        }
    }

    private func prepare(
        _ request: QMPRequest, _ connection: MonitorConnection
    ) throws(QMPError) -> CommandTable.Prepared {
        if request.command == Negotiation.command {
            return try Negotiation.prepare(request.arguments, connection)
        }
        guard connection.isNegotiated else { throw Negotiation.expected }
        if let entry = commands.entry(request.command), !hooks.isGuests(request.command, request.arguments) {
            if request.kind == .executeOutOfBand, !entry.allowsOutOfBand {
                throw Self.refusedOutOfBand(request.command)
            }
            return try entry.prepare(request.arguments)
        }
        guard let passThrough = hooks.passThrough else { throw CommandTable.notFound(request.command) }
        let guestCommands = hooks.guestCommands
        let isOutOfBand = request.kind == .executeOutOfBand
        return CommandTable.Prepared(touches: []) {
            // Which of its commands a guest runs out of band is its own affair: its monitor is not the client's.
            if isOutOfBand {
                let isGuests = await guestCommands().contains(request.command)
                throw isGuests ? Self.refusedOutOfBand(request.command) : CommandTable.notFound(request.command)
            }
            guard let result = try await passThrough(request.command, request.arguments) else {
                throw CommandTable.notFound(request.command)
            }
            return result
        }
    }

    private nonisolated static func refusedOutOfBand(_ command: String) -> QMPError {
        QMPError(.genericError, "The command \(command) does not support OOB")
    }

    /// Carries out an `exec-oob` message, whatever else is under way.
    func runOutOfBand(_ envelope: JSONValue, _ connection: MonitorConnection) async {
        do throws(QMPEnvelopeError) {
            let (request, prepared) = try read(.success(envelope), connection)
            await carryOut(request, prepared, connection)
        } catch {
            connection.send(QMPResponse.failure(error.error, id: error.id))
        }
    }
}
