/// One internal snapshot of one image (`SnapshotInfo` of QAPI, and what QEMU's has no place for).
public struct SnapshotInfo: Sendable, Equatable {
    /// Unique in its image; decimal by QEMU's habit.
    public var id: String
    /// The tag.
    public var name: String
    /// Size of the state stored beside it, in bytes; 0 for a disk-only snapshot.
    public var vmStateByteCount: UInt64
    public var dateSeconds: UInt32
    public var dateNanoseconds: UInt32
    public var guestClockNanoseconds: UInt64
    /// Size of the disk at that time.
    public var diskByteCount: UInt64
    /// Instruction count under record/replay.
    public var icount: UInt64?
    /// Bytes that the agent keeps with the snapshot (at most 512): the set's UUID and checksum. Empty for strangers'.
    public var annotation: [UInt8]

    public init(
        id: String, name: String, vmStateByteCount: UInt64 = 0, dateSeconds: UInt32, dateNanoseconds: UInt32 = 0,
        guestClockNanoseconds: UInt64 = 0, diskByteCount: UInt64, icount: UInt64? = nil, annotation: [UInt8] = []
    ) {
        self.id = id
        self.name = name
        self.vmStateByteCount = vmStateByteCount
        self.dateSeconds = dateSeconds
        self.dateNanoseconds = dateNanoseconds
        self.guestClockNanoseconds = guestClockNanoseconds
        self.diskByteCount = diskByteCount
        self.icount = icount
        self.annotation = annotation
    }
}

/// What a new snapshot is to be.
public struct SnapshotRequest: Sendable {
    public var name: String
    public var dateSeconds: UInt32
    public var dateNanoseconds: UInt32
    public var guestClockNanoseconds: UInt64
    public var annotation: [UInt8]
    /// The new id is greater than this, so that an id that an intent named is not used twice.
    public var idFloor: UInt64

    public init(
        name: String, dateSeconds: UInt32, dateNanoseconds: UInt32, guestClockNanoseconds: UInt64 = 0,
        annotation: [UInt8] = [], idFloor: UInt64 = 0
    ) {
        self.name = name
        self.dateSeconds = dateSeconds
        self.dateNanoseconds = dateNanoseconds
        self.guestClockNanoseconds = guestClockNanoseconds
        self.annotation = annotation
        self.idFloor = idFloor
    }
}

extension SnapshotRequest {
    /// A snapshot of the moment `time`, as `SystemClock.realtime()` gives it.
    public init(name: String, at time: (seconds: Int64, nanoseconds: UInt32)) {
        self.init(
            name: name, dateSeconds: UInt32(truncatingIfNeeded: time.seconds), dateNanoseconds: time.nanoseconds)
    }
}
