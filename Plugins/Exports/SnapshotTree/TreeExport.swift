import ColdframeKit
import LinuxSystem

/// One mounted tree. It follows the catalogue until it is stopped.
@AgentActor
final class TreeExport: SnapshotExport {
    struct Options: Sendable {
        var id: String
        var mountpoint: String
        /// Other users may look too (`allow_other`).
        var allowOther = false
        /// `cache=none`.
        var isDirect = false
    }

    let mountpoint: String
    private let session: FUSESession
    private let server: TreeServer
    private var builder: TreeBuilder
    private var tree: Tree
    private var observation: (any ObservationToken)?

    private init(session: FUSESession, server: TreeServer, builder: TreeBuilder, tree: Tree) {
        mountpoint = session.mountpoint
        self.session = session
        self.server = server
        self.builder = builder
        self.tree = tree
    }

    /// Checks the mountpoint, mounts and begins to follow the catalogue. On a throw nothing is changed.
    static func start(_ options: Options, services: any AgentServices) async throws -> TreeExport {
        FUSELog.install(services.logger)
        let mountpoint = try await BlockingPool.shared.run { () throws(ColdframeError) in
            try Mountpoint.check(options.mountpoint)
        }
        var builder = TreeBuilder(agentName: services.agentName)
        let tree = builder.build(services.snapshotSets(), now: .now)
        let holder = "snapshot export '\(options.id)'"
        let server = TreeServer(
            tree: tree, owner: .agent, isDirect: options.isDirect, generation: UInt64(clamping: TreeDate.now.seconds),
            lease: { [weak services] key in
                guard let services else { throw ColdframeError(.cancelled, "The agent is ending") }
                return try await services.openSnapshot(
                    nodeName: key.nodeName, snapshotID: key.snapshotID, holder: holder)
            })
        let session = try await BlockingPool.shared.run { () throws(ColdframeError) in
            try FUSESession.start(
                FUSESession.Options(
                    mountpoint: mountpoint, sourceName: "coldframe:\(options.id)", allowOther: options.allowOther),
                server: server)
        }
        let export = TreeExport(session: session, server: server, builder: builder, tree: tree)
        export.observation = services.observeCatalogue { [weak export] sets in export?.update(sets) }
        // What changed while the mount was made.
        export.update(services.snapshotSets())
        return export
    }

    private func update(_ sets: [SnapshotSet]) {
        let next = builder.build(sets, now: .now)
        let change = TreeChange(from: tree, to: next)
        // A lease that came or went is a change of the catalogue too, and none of the tree.
        guard !change.isEmpty else { return }
        tree = next
        session.publish(next, change)
    }

    func stop() async {
        observation?.cancel()
        observation = nil
        let session = session
        await BlockingPool.shared.run { session.stop() }
    }
}

extension TreeDate {
    static var now: TreeDate {
        let time = SystemClock.realtime()
        return TreeDate(seconds: time.seconds, nanoseconds: time.nanoseconds)
    }
}

extension TreeOwner {
    /// The user that this process runs as.
    static var agent: TreeOwner {
        TreeOwner(userID: ProcessControl.effectiveUserID, groupID: ProcessControl.effectiveGroupID)
    }
}
