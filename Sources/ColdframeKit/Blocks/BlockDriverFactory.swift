import Logging
import QAPI
import QMPWire

/// What a module contributes for one value of `BlockdevDriver`.
public protocol BlockDriverFactory: Sendable {
    /// QAPI's name: the discriminator of `BlockdevOptions`.
    var driverName: String { get }

    /// Opens an image. `options.branch` is this module's generated branch type; only the module casts it (`own`).
    ///
    /// Blocking work goes to `BlockingPool`. On a throw nothing stays open; children that were opened through `context`
    /// are closed by the graph.
    @AgentActor
    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver

    /// Whether a parent opens this driver with a protocol below it (`file`), as formats do.
    var isFormat: Bool { get }

    /// Whether a file that begins with `head`, up to 512 bytes, is one of this format's. Only for files that the user has
    /// named without a format; nothing else is ever guessed. The default is no.
    func recognises(head: [UInt8]) -> Bool

    /// Its nodes show their first child with something added, which they open in the role `.filtered`.
    var isFilter: Bool { get }

    /// How nodes are given other options while they are in use (`blockdev-reopen`). The default is by another driver for
    /// formats, and not at all otherwise.
    var reopening: ReopeningWay { get }

    /// Makes a new image (`blockdev-create`). `options.branch` is the module's branch of `BlockdevCreateOptions`.
    /// The default throws QEMU's text for drivers that cannot.
    @AgentActor
    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws
}

/// What `blockdev-reopen` does with a node of a driver.
public enum ReopeningWay: Sendable {
    case refused
    /// Another driver is opened with the new options on the same children.
    case anotherDriver
    /// The driver stays as it is, and so must its own options; what the graph does for any node may change.
    case sameDriver
}

extension BlockDriverFactory {
    public var isFilter: Bool { false }

    public var reopening: ReopeningWay { isFormat ? .anotherDriver : .refused }

    public func recognises(head: [UInt8]) -> Bool { false }

    /// `branch`, of the options that the factory was given, as the type that its module has generated for them.
    public func own<Branch>(_ branch: any Sendable) throws(ColdframeError) -> Branch {
        guard let own = branch as? Branch else {
            throw ColdframeError(.invalidArgument, "Driver '\(driverName)' was given options of another driver")
        }
        return own
    }

    @AgentActor
    public func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        throw ColdframeError(.unsupported, "Driver does not support blockdev-create")
    }
}

/// What a driver that is being opened may ask of the graph.
@AgentActor
public protocol OpenContext: AnyObject {
    /// Name of the node that is being made.
    var nodeName: String { get }
    /// Read-only as asked for, or by `auto-read-only` if the driver finds that it cannot write.
    var isReadOnly: Bool { get }
    /// The image was opened with `auto-read-only`: a driver that may not write opens read-only instead of failing.
    var autoReadOnly: Bool { get }
    /// Opens or looks up a child and records it as this node's. `role` decides permissions and inherited options.
    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode
    /// The same, with permissions that the driver takes on the child and that it forbids others, beyond those of its role.
    func child(
        _ name: String, _ reference: BlockdevRef, role: ChildRole, taking: [BlockPermission],
        unsharing: [BlockPermission]
    ) async throws -> BlockNode
    /// The images from the one that a child shows down to the node `bottom`, from top to bottom, without filters: each the core's
    /// own view. While the new node lives nobody takes one of them away or puts something in between. QEMU's text if there is
    /// no such node, or if somebody else has frozen the chain.
    func frozenLayers(ofChild name: String, downTo bottom: String) throws -> [BlockNode]
    /// A list of children: edges `NAME.0`, `NAME.1` and so on, in the order of the references. A node that is opened anew has those
    /// that it has, whatever their numbers are by now.
    func children(
        _ name: String, _ references: [BlockdevRef], role: ChildRole, taking: [BlockPermission]
    ) async throws -> [ListedChild]
    /// A dirty bitmap of any node that nobody is at; QEMU's text if there is none.
    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap
    /// An object that a client has made; nil if there is none of that id.
    func object(id: String) -> (any UserObject)?
    /// Opens the backing file that an image names, if the gate allows it; `format` nil means that the image does not
    /// say. The error names the file and the options that would allow it.
    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode
    /// Opens the file that an image names as the one that holds its guest data, as a plain file, if the gate allows it.
    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode
    /// Opens an internal snapshot of a child that was opened before, for as long as the new node lives: the snapshot with this
    /// id, this tag, or both. While the lease lasts the snapshot cannot be deleted; the driver releases it when it is closed.
    /// Throws if there is none, or if it is being made or deleted.
    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease
    /// What the driver calls, on any thread, when it finds the image damaged (`BLOCK_IMAGE_CORRUPTED`).
    func corruptionReport() -> @Sendable (ImageCorruption) -> Void
    /// What the driver calls, on any thread, to tell all monitors of something that its users or its image can cause as often as
    /// they like: of a kind, and of a `node-name` in its data, one event in a second is sent, and the last of those that came between.
    func eventReport() -> @Sendable (_ name: String, _ data: JSONObject) -> Void
    /// For what people have to know and no answer tells.
    var logger: Logger { get }
}

/// One of a list of children, with the name of its edge.
public struct ListedChild: Sendable {
    public let name: String
    public let node: BlockNode
    public init(name: String, node: BlockNode) {
        self.name = name
        self.node = node
    }
}

extension OpenContext {
    /// For contexts in which nobody else uses the child.
    public func child(
        _ name: String, _ reference: BlockdevRef, role: ChildRole, taking: [BlockPermission],
        unsharing: [BlockPermission]
    ) async throws -> BlockNode { try await child(name, reference, role: role) }

    /// For contexts without other nodes.
    public func frozenLayers(ofChild name: String, downTo bottom: String) throws -> [BlockNode] {
        throw ColdframeError(.notFound, "Bottom node '\(bottom)' not found")
    }

    public func children(
        _ name: String, _ references: [BlockdevRef], role: ChildRole, taking: [BlockPermission]
    ) async throws -> [ListedChild] {
        var list: [ListedChild] = []
        for (index, reference) in references.enumerated() {
            let edge = "\(name).\(index)"
            list.append(
                ListedChild(
                    name: edge,
                    node: try await child(edge, reference, role: role, taking: taking, unsharing: [])))
        }
        return list
    }

    /// Heard by nobody, for contexts without monitors.
    public func eventReport() -> @Sendable (_ name: String, _ data: JSONObject) -> Void { { _, _ in } }

    /// Kept nowhere, for contexts without a log.
    public var logger: Logger { Logger(label: nodeName) { _ in SwiftLogNoOpLogHandler() } }

    /// None, for contexts without objects.
    public func object(id: String) -> (any UserObject)? { nil }

    /// For a driver that never writes: refuses to be opened for writing, unless `auto-read-only` lets it open read-only.
    public func refuseWriting(by driverName: String, to filename: String) throws(ColdframeError) {
        guard isReadOnly || autoReadOnly else {
            throw ColdframeError(
                .unsupported,
                "Driver '\(driverName)' does not write: open '\(filename)' with read-only=on")
        }
    }
}

/// Damage that a driver has found in its image.
public struct ImageCorruption: Sendable {
    /// For people: what is wrong, where.
    public var message: String
    /// Place and size of the access to the image file, if it was one.
    public var offset: UInt64?
    public var byteCount: UInt64?
    /// The image has been marked and is read-only from now on.
    public var isFatal: Bool

    public init(message: String, offset: UInt64? = nil, byteCount: UInt64? = nil, isFatal: Bool) {
        self.message = message
        self.offset = offset
        self.byteCount = byteCount
        self.isFatal = isFatal
    }
}

/// What a child is to its parent (`BdrvChildRole`).
public enum ChildRole: Sendable {
    /// Holds the format's metadata and data: opened as writable as the parent, never shared with another writer.
    case image
    /// Holds the guest's data and nothing else, for a parent whose metadata lies in another child: as `image`.
    case data
    /// Read where the parent has nothing; opened read-only.
    case backing
    /// What a filter shows, or a raw image: needed as the parent itself is needed, and shared with others. A filter's first child.
    case filtered
    /// Looked at, with nothing needed of it and nothing forbidden.
    case observed
    /// Written by a filter beside what it shows; others may read it.
    case copyTarget
    /// One of several that hold the disk that the parent shows: needed as the parent itself is needed, and written by nobody else.
    case replica

    /// The parent writes to it by itself.
    public var isWritten: Bool {
        switch self {
        case .image, .data, .copyTarget: true
        case .backing, .filtered, .observed, .replica: false
        }
    }
}

/// What a format that makes an image may ask of the graph.
@AgentActor
public protocol CreateContext: AnyObject, Sendable {
    /// The node (or inline definition) that the new image goes into, open for writing and resizing.
    func target(_ reference: BlockdevRef) async throws -> BlockNode
    /// Adds to the job's progress, in bytes.
    func advance(byteCount: UInt64)
}
