import QMPWire

/// One tag of the catalogue: the snapshots of all nodes that belong together, or that share a name by chance.
public struct SnapshotSet: Sendable, Equatable {
    public var tag: String
    /// The set's UUID in lower-case text; nil for snapshots that the agent did not make, or when `isMixed`.
    public var uuid: String?
    /// The members do not belong to one save: different UUIDs or none, and more than one node.
    public var isMixed: Bool
    /// The members are whole: every node that the set names has its snapshot.
    public var isComplete: Bool
    /// One per node, in the graph's order.
    public var members: [Member]
    /// Who has it open, in words for people.
    public var holders: [String]

    public struct Member: Sendable, Equatable {
        public var nodeName: String
        public var snapshot: SnapshotInfo
        public init(nodeName: String, snapshot: SnapshotInfo) {
            self.nodeName = nodeName
            self.snapshot = snapshot
        }
    }

    public init(
        tag: String, uuid: String?, isMixed: Bool, isComplete: Bool, members: [Member], holders: [String] = []
    ) {
        self.tag = tag
        self.uuid = uuid
        self.isMixed = isMixed
        self.isComplete = isComplete
        self.members = members
        self.holders = holders
    }

    /// The member that holds the state of the machine.
    public var vmStateMember: Member? { members.first { $0.snapshot.vmStateByteCount > 0 } }
}

/// The disk of a snapshot, held open under a lease. It is given back by `release`, once.
public protocol SnapshotLease: AnyObject, Sendable {
    /// The disk as it was.
    var disk: any BlockDriver { get }
    /// The state beside it, or nil.
    var vmState: (any VMStateReader)? { get }
    /// Ends the lease; the disk must not be used any more. Any thread.
    func release()
}
