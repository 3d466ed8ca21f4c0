import Logging
import QAPI
import QMPWire

/// What a module gets from the core. Implemented by AgentCore; a module never imports it.
@AgentActor
public protocol AgentServices: AnyObject, Sendable {
    /// `--name`, or nil.
    nonisolated var agentName: String? { get }
    nonisolated var logger: Logger { get }
    /// A folder of the module's own for sockets and pid files, 0700, made if missing. Throws without `--name`.
    func runtimeDirectory(for module: String) throws -> String
    /// A folder of the module's own that outlives the agent and the host, 0700. Throws without `--name`.
    func stateDirectory(for module: String) throws -> String

    /// Looks a node up; QEMU's text if there is none.
    func node(named name: String) throws -> BlockNode
    /// Adds a node that the module made itself (the barrier); it is not listed and not addressable by clients.
    func addPrivateNode(name: String, driver: any BlockDriver) throws -> BlockNode
    func removePrivateNode(name: String) async throws
    /// Declares that `holder` has the node as its disk `name` (`blockdev-del` refuses, naming it), with write access or
    /// without. Without, writes through `node` are refused. The claim follows the disk to other nodes, as does `node`; the
    /// agent's record says to which before anything is written there.
    func claim(_ node: BlockNode, asDisk name: String, of holder: String, isWriter: Bool) throws -> any NodeClaim
    /// The dirty bitmap of that name on the node or, with `throughBacking`, on it or the nearest below it that has one;
    /// QEMU's text if there is none or somebody uses it. With the node that has it.
    func bitmap(
        named name: String, node nodeName: String, throughBacking: Bool
    ) throws -> (node: BlockNode, bitmap: DirtyBitmap)
    /// `blockdev-add`, `block-export-add`, `-del` by QAPI value, as from a client.
    func addBlockdev(_ options: BlockdevOptions) async throws
    func addExport(_ options: BlockExportOptions) async throws
    func removeExport(id: String) async throws
    /// Where clients find a node, as QEMU writes it: its exports that are writable, or all of a read-only node.
    func exportURIs(of node: BlockNode) -> [String]

    /// The catalogue as it is now: whole sets only, none that is being made or deleted.
    func snapshotSets() -> [SnapshotSet]
    /// Calls `observer` on the actor after every change of the catalogue, until the token is cancelled.
    func observeCatalogue(_ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void) -> any ObservationToken
    /// Opens a member of a set under a lease. While it lasts, delete refuses and names `holder`.
    func openSnapshot(nodeName: String, snapshotID: String, holder: String) async throws -> any SnapshotLease

    /// A private server for a guest's disks; throws if no module provides one.
    func startDiskServer(socketPath: String) async throws -> any DiskServer

    /// Sends an event to all monitors, stamped now.
    func postEvent(_ name: String, data: JSONObject?)
    /// Forwards an event of the guest, with its own stamp (the whole event object as received).
    func forwardGuestEvent(_ event: JSONObject)
    /// The guest is gone: the core ends what depended on it.
    func guestDied(id: String, reason: String)
}

/// A claim on a node; ends with `release`, once.
@AgentActor
public protocol NodeClaim: AnyObject, Sendable {
    /// The node that it is on now. After `release`: was.
    var nodeName: String { get }
    /// Changes whether its holder may write; QEMU's text if somebody is in the way. The node's gates are closed.
    func setWriter(_ isWriter: Bool) throws
    func release()
}

/// Ends an observation.
@AgentActor
public protocol ObservationToken: AnyObject, Sendable {
    func cancel()
}
