import QAPI

/// What a module contributes for one kind of place that keeps states of machines outside the images.
public protocol VMStateStoreFactory: Sendable {
    /// QAPI's name: the discriminator of `VMStateStoreOptions`.
    var driverName: String { get }

    /// Opens a store for one agent; a second one is refused (`.busy`). `options.branch` is this module's generated branch
    /// type; only the module casts it. Blocking work goes to `BlockingPool`. On a throw nothing stays open.
    @AgentActor
    func open(_ options: VMStateStoreOptions) async throws -> any VMStateStore
}

/// Keeps states of machines, each known by the UUID of the snapshot set that it belongs to.
///
/// A state is begun, written and committed; it is whole or not there. The UUID is the caller's and known before the store is
/// told of it: an intent that names store and UUID names everything that `begin` and what follows may leave behind, and
/// `condition` and `discard` find it again after a kill.
///
/// **Threads.** All methods block and may be called from any thread at once. A writer is one thread's.
///
/// **Durability.** When `commit` or `discard` has returned, power loss does not undo it; a crash inside leaves the state whole
/// or not there (`.unfinished` counts as not there).
///
/// **Hostile.** Files may be anybody's: what is not the store's own is an error or left alone, and never followed.
public protocol VMStateStore: AnyObject, Sendable {
    var driverName: String { get }
    /// Tells this store from others, also after a restart of the agent: what an intent writes down.
    var identity: String { get }

    /// States that are whole, ordered by UUID. What is damaged is reported in `damaged` by words.
    func list() throws(ColdframeError) -> VMStateListing
    /// Begins a state. Throws `.alreadyExists` if the UUID has one, whole or unfinished.
    func begin(_ label: VMStateLabel) throws(ColdframeError) -> any VMStateStoreWriter
    /// A whole state for reading; throws `.notFound` if there is none, `.corrupt` if its description is damaged. Stays readable
    /// until it is closed by its last reference, also if the state is discarded meanwhile.
    func open(_ setID: String) throws(ColdframeError) -> any StoredVMStateReader
    /// What there is of a set's state.
    func condition(of setID: String) throws(ColdframeError) -> VMStateCondition
    /// Removes a set's state, whole or unfinished. Nothing there is no error, so that it may be done again after a crash.
    func discard(_ setID: String) throws(ColdframeError)
    /// Gives the store up. Nobody is inside; once.
    func close()
}

/// A state on its way into a store. One thread at a time.
public protocol VMStateStoreWriter: AnyObject, Sendable {
    /// Appends to the state.
    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError)
    /// Makes the state durable, in one step of which a crash leaves it whole or unfinished. After a throw it is one or the
    /// other: `condition` says which, `abandon` removes it.
    func commit(guestClockNanoseconds: UInt64) throws(ColdframeError) -> StoredVMState
    /// Removes what was written; also after a failed `append` or `commit`.
    func abandon() throws(ColdframeError)
}

/// A state that is being read, with what it must be.
public protocol StoredVMStateReader: VMStateReader {
    var state: StoredVMState { get }
}

extension StoredVMStateReader {
    /// Reads the whole state and compares it with its checksum; `.corrupt` if it is another. `checksum` continues a CRC32C
    /// by the given bytes.
    public func verify(
        _ checksum: (UInt32, UnsafeRawBufferPointer) -> UInt32
    ) throws(ColdframeError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        defer { buffer.deallocate() }
        var found: UInt32 = 0
        var offset: UInt64 = 0
        while offset < byteCount {
            let count = Int(min(UInt64(buffer.count), byteCount - offset))
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
            try read(into: piece, at: offset)
            found = checksum(found, UnsafeRawBufferPointer(piece))
            offset += UInt64(count)
        }
        guard found == state.checksum else {
            throw ColdframeError(
                .corrupt,
                "The state of set \(state.label.setID) ('\(state.label.tag)') has another checksum than when it was "
                    + "stored: it is damaged")
        }
    }
}

/// What a state is called.
public struct VMStateLabel: Sendable, Equatable {
    /// A UUID in lower case, 36 characters.
    public var setID: String
    /// The snapshot's tag: any text of at most 1023 bytes.
    public var tag: String
    /// When the state was begun, since 1970.
    public var dateSeconds: UInt32
    public var dateNanoseconds: UInt32
    /// Bytes of the agent's (at most 512).
    public var annotation: [UInt8]

    public static let tagByteLimit = 1023
    public static let annotationByteLimit = 512

    public init(
        setID: String, tag: String, dateSeconds: UInt32, dateNanoseconds: UInt32 = 0, annotation: [UInt8] = []
    ) {
        self.setID = setID
        self.tag = tag
        self.dateSeconds = dateSeconds
        self.dateNanoseconds = dateNanoseconds
        self.annotation = annotation
    }

    /// Whether the text is a UUID as a set has it: what may become a file's name.
    public static func isSetID(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return bytes.count == 36
            && bytes.indices.allSatisfy { index in
                switch index {
                case 8, 13, 18, 23: bytes[index] == UInt8(ascii: "-")
                default:
                    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index])
                        || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(bytes[index])
                }
            }
    }

    /// Throws `.invalidArgument` if a store cannot take it.
    public func check() throws(ColdframeError) {
        guard Self.isSetID(setID) else {
            throw ColdframeError(.invalidArgument, "'\(setID)' is no UUID in lower case: a state needs its set's")
        }
        guard tag.utf8.count <= Self.tagByteLimit else {
            throw ColdframeError(.invalidArgument, "A tag has at most \(Self.tagByteLimit) bytes")
        }
        guard annotation.count <= Self.annotationByteLimit else {
            throw ColdframeError(.invalidArgument, "An annotation has at most \(Self.annotationByteLimit) bytes")
        }
    }
}

/// A state that is whole.
public struct StoredVMState: Sendable, Equatable {
    public var label: VMStateLabel
    public var byteCount: UInt64
    /// CRC32C of all bytes.
    public var checksum: UInt32
    public var guestClockNanoseconds: UInt64

    public init(label: VMStateLabel, byteCount: UInt64, checksum: UInt32, guestClockNanoseconds: UInt64) {
        self.label = label
        self.byteCount = byteCount
        self.checksum = checksum
        self.guestClockNanoseconds = guestClockNanoseconds
    }
}

/// What a store has of one set.
public enum VMStateCondition: Sendable, Equatable {
    case absent
    /// Begun and not committed: somebody writes it, or was killed.
    case unfinished
    case whole(StoredVMState)
}

/// What a store holds.
public struct VMStateListing: Sendable {
    public var states: [StoredVMState]
    /// For people: each state that is damaged, and how.
    public var damaged: [String]

    public init(states: [StoredVMState], damaged: [String]) {
        self.states = states
        self.damaged = damaged
    }
}
