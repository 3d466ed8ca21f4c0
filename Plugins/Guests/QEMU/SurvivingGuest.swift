import ColdframeKit
import KeeperWire
import LinuxSystem

/// A guest that runs already, with its keeper: an earlier agent's, or one that is to be attached.
@AgentActor
struct SurvivingGuest {
    /// Where it stands.
    let request: GuestRequest
    let keeper: KeeperLink
    let processID: Int32
    /// The keeper was started for this.
    let hasNewKeeper: Bool

    /// Whether there is one. Nothing is touched.
    static func exists(_ request: GuestRequest) async throws -> Bool {
        for request in request.slots where try await isThere(request) { return true }
        return false
    }

    private static func isThere(_ request: GuestRequest) async throws -> Bool {
        if let (link, _) = try await KeeperLink.survivor(socketPath: request.keeperPath, onExit: { _ in }) {
            link.close()
            return true
        }
        return await process(listeningAt: request.monitorPath) != nil
    }

    /// The guest of this request, nil if it does not run. Another one is an error: it waits for its disks, and must not
    /// find them under somebody else's feet.
    static func find(
        _ request: GuestRequest, onExit: @escaping KeeperLink.ExitHandler
    ) async throws -> SurvivingGuest? {
        var found: [GuestRequest] = []
        for request in request.slots where try await isThere(request) { found.append(request) }
        guard found.count < 2 else {
            throw ColdframeError(
                .busy,
                "Two processes of guest '\(request.id)' run, with the monitors '\(found[0].monitorPath)' and "
                    + "'\(found[1].monitorPath)', and nothing says which of them is to go on: end one by 'quit' on its monitor"
            )
        }
        guard let request = found.first else { return nil }
        if let (link, status) = try await KeeperLink.survivor(socketPath: request.keeperPath, onExit: onExit) {
            guard status.identity == request.identity else {
                link.close()
                throw ColdframeError(
                    .busy,
                    "A guest of an earlier agent still runs as process \(status.processID), with another id, command or "
                        + "disks: end it ('kill \(status.processID)'), then start the guest again")
            }
            return SurvivingGuest(request: request, keeper: link, processID: status.processID, hasNewKeeper: false)
        }
        guard let processID = await process(listeningAt: request.monitorPath) else { return nil }
        // It never had a keeper, or that was killed: a new one looks after it from here on.
        let keeper = try await startKeeper(request, processID: processID, onExit: onExit)
        return SurvivingGuest(request: request, keeper: keeper, processID: processID, hasNewKeeper: true)
    }

    /// A new keeper for a process that runs.
    static func startKeeper(
        _ request: GuestRequest, processID: Int32, onExit: @escaping KeeperLink.ExitHandler
    ) async throws -> KeeperLink {
        let keeper = try await KeeperLink.start(
            socketPath: request.keeperPath, errorLogPath: request.keeperLogPath, onExit: onExit)
        do {
            try await keeper.adopt(processID: processID, identity: request.identity)
        } catch {
            keeper.close()
            throw error
        }
        return keeper
    }

    /// It could not be taken over. One that somebody else has started goes on as if nothing had been asked of it.
    func giveUp() async {
        if request.isAttached, hasNewKeeper { await keeper.disown() }
        keeper.close()
    }

    /// Whether its process is gone, or is about to be: one that does not answer as it should may be at its end.
    func hasEnded() async -> Bool {
        await BlockingPool.shared.run {
            guard let process = try? ProcessControl.pidfdOpen(processID) else { return true }
            let ready = try? process.poll(for: .readable, timeoutMilliseconds: Self.lastMomentMilliseconds)
            return ready?.isEmpty == false
        }
    }

    /// How long one may take from its last answer to its end.
    private nonisolated static let lastMomentMilliseconds = 1_000

    /// How long a killed process may take to be gone.
    private nonisolated static let endTimeoutMilliseconds = 10_000

    /// Kills the process that stands there, if one does and it is of this guest, and returns when it is gone.
    static func end(_ request: GuestRequest) async throws {
        let processID: Int32
        if let (link, status) = try await KeeperLink.survivor(socketPath: request.keeperPath, onExit: { _ in }) {
            link.close()
            guard status.identity == request.identity else { return }
            processID = status.processID
        } else if let found = await process(listeningAt: request.monitorPath) {
            processID = found
        } else {
            return
        }
        // It may have ended just now.
        guard let process = try? ProcessControl.pidfdOpen(processID) else { return }
        try? ProcessControl.signal(pidfd: process, Signals.kill)
        let hasEnded = try await BlockingPool.shared.run { () throws(SystemError) in
            try !process.poll(for: .readable, timeoutMilliseconds: Self.endTimeoutMilliseconds).isEmpty
        }
        guard hasEnded else {
            throw ColdframeError(.timedOut, "Process \(processID) of guest '\(request.id)' does not end")
        }
    }

    /// The process that listens at a socket; nil if none does.
    static func process(listeningAt path: String) async -> Int32? {
        await BlockingPool.shared.run {
            guard let socket = try? UnixSocket.connect(path: path) else { return nil }
            return try? socket.peerCredentials().processID
        }
    }
}
