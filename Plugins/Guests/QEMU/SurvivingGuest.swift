import ColdframeKit
import KeeperWire
import LinuxSystem

/// A guest that runs already, with its keeper: an earlier agent's, or one that is to be attached.
@AgentActor
struct SurvivingGuest {
    let keeper: KeeperLink
    let processID: Int32
    /// The keeper was started for this.
    let hasNewKeeper: Bool

    /// Whether there is one. Nothing is touched.
    static func exists(_ request: GuestRequest) async throws -> Bool {
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
        if let (link, status) = try await KeeperLink.survivor(socketPath: request.keeperPath, onExit: onExit) {
            guard status.identity == request.identity else {
                link.close()
                throw ColdframeError(
                    .busy,
                    "A guest of an earlier agent still runs as process \(status.processID), with another id, command or "
                        + "disks: end it ('kill \(status.processID)'), then start the guest again")
            }
            return SurvivingGuest(keeper: link, processID: status.processID, hasNewKeeper: false)
        }
        guard let processID = await process(listeningAt: request.monitorPath) else { return nil }
        // It never had a keeper, or that was killed: a new one looks after it from here on.
        let keeper = try await KeeperLink.start(
            socketPath: request.keeperPath, errorLogPath: request.keeperLogPath, onExit: onExit)
        do {
            try await keeper.adopt(processID: processID, identity: request.identity)
        } catch {
            keeper.close()
            throw error
        }
        return SurvivingGuest(keeper: keeper, processID: processID, hasNewKeeper: true)
    }

    /// It could not be taken over. One that somebody else has started goes on as if nothing had been asked of it.
    func giveUp(_ request: GuestRequest) async {
        if request.isAttached, hasNewKeeper { await keeper.disown() }
        keeper.close()
    }

    /// The process that listens at a socket; nil if none does.
    static func process(listeningAt path: String) async -> Int32? {
        await BlockingPool.shared.run {
            guard let socket = try? UnixSocket.connect(path: path) else { return nil }
            return try? socket.peerCredentials().processID
        }
    }
}
