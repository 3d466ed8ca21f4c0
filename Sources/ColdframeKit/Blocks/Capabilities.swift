import LinuxSystem
import QAPI

// A caller asks a driver for the capability it needs (`driver as? any SnapshotBearing`), never for its type, and names
// the missing one in the error.

/// Has internal snapshots.
///
/// The methods do blocking I/O; the agent calls them on `BlockingPool`, one at a time per driver, and except for
/// `snapshots` and `openSnapshot` only while the node is drained of requests from outside (requests may still be
/// waiting at the gate).
public protocol SnapshotBearing: BlockDriver {
    /// In the order of the image's table. Does no I/O and may be called from any thread.
    var snapshots: [SnapshotInfo] { get }
    /// Records the disk as it is now. When it returns, the snapshot is durable. The id is one more than the greatest
    /// numeric id in the image (QEMU's rule) and above `request.idFloor`.
    func createSnapshot(_ request: SnapshotRequest) throws(ColdframeError) -> SnapshotInfo
    /// Removes a snapshot with its vmstate. Durable when it returns; a crash leaves it whole or gone. `progress` is called
    /// now and then.
    func deleteSnapshot(id: String, progress: @escaping SnapshotProgress) throws(ColdframeError)
    /// Makes the disk equal to the snapshot, which stays. Durable when it returns; a crash leaves the old or the new.
    func revert(toSnapshot id: String) throws(ColdframeError)
    /// The disk as it was, read-only and parallel, valid while the snapshot exists (the agent holds a lease). It shares
    /// this driver's files; its `close` gives up only what is its own.
    func openSnapshot(id: String) throws(ColdframeError) -> any BlockDriver
}

extension SnapshotBearing {
    /// Removes a snapshot for somebody who does not watch.
    public func deleteSnapshot(id: String) throws(ColdframeError) { try deleteSnapshot(id: id) { _, _ in } }
}

/// Is told how far a long operation has come, in bytes of the disk, on the thread that does it. It ends the operation by a
/// throw; then nothing has been changed. It is not called any more once something has.
public typealias SnapshotProgress = (_ doneByteCount: UInt64, _ totalByteCount: UInt64) throws(ColdframeError) -> Void

/// Has room for the state of a virtual machine beside a snapshot.
public protocol VMStateBearing: SnapshotBearing {
    /// Begins to store a state, for a snapshot that may not exist yet (precopy streams RAM before the cut). Appends may
    /// run while requests of the guest are served and while a snapshot is created. At most one writer per driver.
    func beginVMState() throws(ColdframeError) -> any VMStateWriter
    /// Reads a stored state; valid while the snapshot exists (lease). Any thread.
    func openVMState(ofSnapshot id: String) throws(ColdframeError) -> any VMStateReader
}

/// A state on its way into the image. One thread at a time.
public protocol VMStateWriter: AnyObject, Sendable {
    /// Appends to the state.
    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError)
    /// Makes the state durable and part of snapshot `id`, which exists and has none, in one step of which a crash
    /// leaves the old or the new. `annotation` replaces the snapshot's. Returns the snapshot as it now is.
    func attach(
        toSnapshot id: String, annotation: [UInt8], guestClockNanoseconds: UInt64
    ) throws(ColdframeError) -> SnapshotInfo
    /// Gives all that was written back; also after a failed `append` or `attach`.
    func abandon() throws(ColdframeError)
}

/// A stored state. Any thread.
public protocol VMStateReader: AnyObject, Sendable {
    var byteCount: UInt64 { get }
    /// Fills `buffer`; the range lies within `byteCount`.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError)
}

/// Gives more space to a format above, which knows itself where its data ends.
public protocol Growable: BlockDriver {
    /// Makes the disk longer, at least so long: more may be added. New space reads as zeros.
    func grow(toByteCount: UInt64) throws(ColdframeError)
}

/// Can change its size while open. Its `grow` is `resize`, unless it says otherwise.
public protocol Resizable: Growable {
    func resize(toByteCount: UInt64) throws(ColdframeError)
}

extension Resizable {
    public func grow(toByteCount: UInt64) throws(ColdframeError) {
        if toByteCount > byteCount { try resize(toByteCount: toByteCount) }
    }
}

/// Shows what a backing node holds wherever it has nothing itself.
public protocol Backed: BlockDriver {
    /// Any thread.
    var backing: BlockNode? { get }
    /// Shows another node, or zeros, from now on. Only while nobody is inside.
    func setBacking(_ node: BlockNode?)
    /// Writes into the image which file and format it is backed by; nil for none. Blocks; durable when it returns, and a
    /// crash leaves the old names or the new. Changes nothing of what the open image shows. The node is drained.
    func setBackingFile(name: String?, format: String?) throws(ColdframeError)
}

/// A protocol that can be made read-only or writable while it is open.
public protocol AccessSwitching: BlockDriver {
    /// Blocks. On a throw everything is as before. The node is drained.
    func setReadOnly(_ isReadOnly: Bool) throws(ColdframeError)
}

/// Lets its size and locks be told apart from other files: what an intent names (facts: an image is identified by
/// device, inode and the format's own identity).
public protocol FileBacked: BlockDriver {
    /// Device and inode of the image file, and its path when it was opened.
    var fileIdentity: FileIdentity { get }
}

/// Which file this is, whatever its name.
public struct FileIdentity: Sendable, Hashable {
    public let device: UInt64
    public let inode: UInt64
    public let path: String
    /// When the file was made, in nanoseconds since 1970; nil where the filesystem does not say. Inode numbers are used
    /// again.
    public let birthNanoseconds: UInt64?
    public init(device: UInt64, inode: UInt64, path: String, birthNanoseconds: UInt64? = nil) {
        self.device = device
        self.inode = inode
        self.path = path
        self.birthNanoseconds = birthNanoseconds
    }
}

/// Can free what nothing in it points to: what an agent that was killed had reserved, or had not given back yet.
public protocol LeakReclaiming: BlockDriver {
    /// Frees all leaked space and returns its bytes. Nobody else uses the node, which is writable. Does blocking I/O on
    /// all of the image's metadata. A crash leaves the image sound, with fewer leaks. Throws `.corrupt`, having changed
    /// nothing, if something is in use that counts as free.
    func reclaimLeaks() throws(ColdframeError) -> UInt64
}

/// Can store data compressed.
public protocol CompressedWriting: BlockDriver {
    /// Data is compressed in pieces of this many bytes, each by itself.
    var compressionUnitByteCount: UInt64 { get }
    /// Writes `buffer` compressed, or as it is where that is not smaller. The range begins at a multiple of
    /// `compressionUnitByteCount` and ends at one or at the disk's end. Threads and durability as for `write`.
    func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError)
}

/// Can take a range of a file over without a copy.
public protocol RangeSharing: BlockDriver {
    /// Makes `byteCount` bytes at `offset`, which lie within the disk, those at `sourceOffset` of `source`: they share the
    /// host's blocks until one of them is written. False, with nothing changed, where the host cannot do that, or not
    /// with these ranges. Threads and durability as for `write`.
    func share(
        _ source: any ExtentSource, at sourceOffset: UInt64, byteCount: UInt64, to offset: UInt64
    ) throws(ColdframeError) -> Bool
}

/// Can have the host write early what it would write at the next flush at the latest.
public protocol WritebackStarting: BlockDriver {
    /// Begins to write what the host holds in memory of the disk, and does not wait for it. A hint: nothing is promised. Threads
    /// as for `write`.
    func startWriteback()
}

/// Can tell whether its content was changed while nobody here had it open.
public protocol ChangeStamped: BlockDriver {
    /// The time of the last change, or nil where the host keeps none that can be relied on (block devices). Two equal
    /// stamps with nothing written through this driver between them mean that nobody else wrote either.
    func changeStamp() throws(ColdframeError) -> ChangeStamp?
}

/// When a file was last changed, on the host's clock since 1970.
public struct ChangeStamp: Sendable, Equatable {
    public let seconds: Int64
    public let nanoseconds: UInt32
    public init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
}

/// Shows what its disk was at one moment, beside what it is now (`copy-before-write`). Any thread.
public protocol MomentReadable: BlockDriver {
    func readMoment(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError)
    /// Nobody needs the range of the moment any more: it need not be kept, and cannot be read.
    func discardMoment(at offset: UInt64, byteCount: UInt64) throws(ColdframeError)
    /// As `extents`, of the moment.
    func momentExtents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent]
}

/// Takes children in and lets them go while it is open (`x-blockdev-change`).
///
/// The methods change nothing but what the driver itself knows and do no I/O. They are called one at a time, only while the gates
/// of all who reach the driver are closed and nobody is inside.
public protocol ChildChanging: BlockDriver {
    /// What the next child's edge would be called, and its role; throws if the driver takes no more.
    func nextChild() throws(ColdframeError) -> (name: String, role: ChildRole, taking: [BlockPermission])
    /// Takes a node in, under the name that `nextChild` said; throws if it is no such node as the driver needs.
    func addChild(_ node: BlockNode, name: String) throws(ColdframeError)
    /// Throws if the driver needs the child.
    func checkRemovable(childNamed name: String) throws(ColdframeError)
    /// Lets one of its children go.
    func removeChild(named name: String)
    /// One of its children has been put on a node that holds all that the driver shows.
    func childBecameWhole(named name: String)
}

/// Holds requests back for a time of its own (`throttle`).
public protocol Delaying: BlockDriver {
    /// Lets all requests pass at once, those too that are held back now, until `endRelease`: a drain waits for them. Nests.
    func beginRelease()
    func endRelease()
}

/// Whose data may lie in holes of its file, which take no space yet and read as zeros.
public protocol HoleBearing: BlockDriver {
    /// The file, if holes are to be expected under what the driver calls data; nil if it is not worth looking. May do I/O.
    func fileWithHoles() throws(ColdframeError) -> BlockNode?
}

/// May keep a place in its file for parts of the disk that read as zeros.
public protocol PlaceReserving: BlockDriver {
    /// Where the place that is kept for the bytes from `offset` on begins, nil if none is, and for how many bytes, at least 1 and at
    /// most `byteCount`, the answer holds. Of use where `extents` speaks of zeros only. Threads as for `extents`.
    func reservedPlace(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (hostOffset: UInt64?, byteCount: UInt64)
}

/// Can tell what it holds itself from what shows through from below.
public protocol Layered: BlockDriver {
    /// Whether the image itself has the bytes from `offset` on (zeros that it records count), and for how many bytes, at
    /// least 1 and at most `byteCount`, the answer holds. The caller has passed a gate.
    func allocation(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) -> (
        isAllocated: Bool, byteCount: UInt64
    )
}

/// Is told whether its size belongs to one user (`preallocate`).
public protocol OwnershipFollowing: BlockDriver {
    /// One of its users writes and resizes it, which nobody else may do: from now on, or no more. Blocks. Requests may be in
    /// flight, but none of that user's.
    func setOwned(_ isOwned: Bool) throws(ColdframeError)
}

/// Counts the discards that reach it (`query-blockstats`). Any thread.
public protocol DiscardCounting: BlockDriver {
    var discardCounts: (succeeded: UInt64, failed: UInt64, byteCount: UInt64) { get }
}
