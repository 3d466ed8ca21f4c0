import ColdframeKit
import QAPI
import QMPWire

/// What an operation over several images is about to do, as the journal records it before it is done.
struct Intent: Sendable, Equatable {
    enum Operation: String, Sendable { case save, load, delete, transaction }

    /// The set's or operation's UUID.
    let uuid: String
    let operation: Operation
    /// The snapshot's name; of a transaction those of all its snapshots and overlays.
    let tag: String
    /// One per image; a transaction may have several for one.
    var images: [Image]
    /// Of a committed transaction: how its graph stands, until the agent's record says so too.
    var shape: GraphShape?
    /// Whether the guest ran when the operation began, which may stop it; nil if no guest takes part.
    var guestWasRunning: Bool?
    /// A load by replacement: the second process, which may be there until the journal does not name it any more.
    var replacement: Replacement?

    /// The process that a load by replacement starts beside the guest's.
    struct Replacement: Sendable, Equatable {
        /// Where it stands (`ReplaceableGuest`).
        var slot: Int
        /// What `guest-add` was given: enough to find both processes.
        var guestOptions: JSONObject
    }

    /// An image as an intent names it: by what its file is, never by its path alone.
    struct Image: Sendable, Equatable {
        var nodeName: String
        var path: String
        var device: UInt64
        var inode: UInt64
        /// When the file was made; nil where its filesystem does not say.
        var birthNanoseconds: UInt64?
        /// The driver that the image was open with: the same file as another format is another image.
        var format: String
        /// The snapshot that the operation makes or removes, once it is known.
        var snapshot: Snapshot?
    }

    /// A snapshot of one image, by more than its id, which may be used again.
    struct Snapshot: Sendable, Equatable {
        var id: String
        var name: String
        var dateSeconds: UInt32
        var dateNanoseconds: UInt32

        func isSame(as info: SnapshotInfo) -> Bool { self == Snapshot(info) }

        init(id: String, name: String, dateSeconds: UInt32, dateNanoseconds: UInt32) {
            self.id = id
            self.name = name
            self.dateSeconds = dateSeconds
            self.dateNanoseconds = dateNanoseconds
        }

        init(_ info: SnapshotInfo) {
            self.init(
                id: info.id, name: info.name, dateSeconds: info.dateSeconds, dateNanoseconds: info.dateNanoseconds)
        }
    }
}

extension Intent {
    /// The name of the snapshots that a load makes of what is there before it.
    var undoName: String { "coldframe-undo-\(uuid)" }

    /// A snapshot that is not to be seen while the intent is pending: it is being made, or it is going.
    @AgentActor
    func hides(_ snapshot: SnapshotInfo, on node: GraphNode) -> Bool {
        switch operation {
        case .save, .load: SetRecord(snapshot.annotation)?.uuidText == uuid
        case .delete, .transaction:
            images.contains { $0.snapshot?.isSame(as: snapshot) == true && $0.isImage(of: node) }
        }
    }
}

extension Intent.Image {
    /// The image below a node, without a snapshot.
    @AgentActor
    init(_ node: GraphNode) {
        let file = node.fileIdentity
        self.init(
            nodeName: node.name, path: file?.path ?? "", device: file?.device ?? 0, inode: file?.inode ?? 0,
            birthNanoseconds: file?.birthNanoseconds, format: node.block.driver.driverName)
    }

    @AgentActor
    func isImage(of node: GraphNode) -> Bool {
        // An image that is no file has nothing but the node's name.
        node.fileIdentity.map(isFile) ?? (inode == 0 && nodeName == node.name)
    }

    /// Whether it is this file. A reboot may change a device's number: then birth and path speak for it.
    func isFile(_ file: FileIdentity) -> Bool {
        guard file.inode == inode, file.birthNanoseconds == birthNanoseconds else { return false }
        return file.device == device || (birthNanoseconds != nil && file.path == path)
    }
}

// In the journal's records.

extension Intent {
    var json: JSONObject {
        var object: JSONObject = [
            "uuid": .string(uuid), "operation": .string(operation.rawValue), "tag": .string(tag),
            "images": .array(images.map { .object($0.json) }),
        ]
        if let guestWasRunning { object["guest-was-running"] = .bool(guestWasRunning) }
        if let replacement {
            object["replacement"] = [
                "slot": .integer(Int64(replacement.slot)), "guest": .object(replacement.guestOptions),
            ]
        }
        if let shape { object["graph"] = .object(shape.json) }
        return object
    }

    init?(json: JSONValue) {
        guard let uuid = json["uuid"]?.stringValue, let tag = json["tag"]?.stringValue,
            let operation = json["operation"]?.stringValue.flatMap(Operation.init(rawValue:)),
            let images = json["images"]?.arrayValue
        else { return nil }
        self.uuid = uuid
        self.tag = tag
        self.operation = operation
        guestWasRunning = json["guest-was-running"]?.boolValue
        if let member = json["replacement"] {
            guard let slot = member["slot"]?.intValue.flatMap({ Int(exactly: $0) }),
                let options = member["guest"]?.objectValue
            else { return nil }
            replacement = Replacement(slot: slot, guestOptions: options)
        }
        shape = json["graph"].flatMap { GraphShape(json: $0) }
        self.images = []
        for image in images {
            guard let image = Image(json: image) else { return nil }
            self.images.append(image)
        }
    }
}

extension Intent.Image {
    fileprivate var json: JSONObject {
        var object: JSONObject = [
            "node": .string(nodeName), "path": .string(path), "device": JSONValue(device), "inode": JSONValue(inode),
            "format": .string(format),
        ]
        if let birthNanoseconds { object["birth"] = JSONValue(birthNanoseconds) }
        if let snapshot {
            object["snapshot"] = [
                "id": .string(snapshot.id), "name": .string(snapshot.name),
                "date-sec": .integer(Int64(snapshot.dateSeconds)),
                "date-nsec": .integer(Int64(snapshot.dateNanoseconds)),
            ]
        }
        return object
    }

    fileprivate init?(json: JSONValue) {
        guard let node = json["node"]?.stringValue, let path = json["path"]?.stringValue,
            let device = json["device"]?.uint64Value, let inode = json["inode"]?.uint64Value,
            let format = json["format"]?.stringValue
        else { return nil }
        self.init(
            nodeName: node, path: path, device: device, inode: inode, birthNanoseconds: json["birth"]?.uint64Value,
            format: format)
        guard let snapshot = json["snapshot"] else { return }
        guard let id = snapshot["id"]?.stringValue, let name = snapshot["name"]?.stringValue,
            let seconds = snapshot["date-sec"]?.uint64Value.flatMap({ UInt32(exactly: $0) }),
            let nanoseconds = snapshot["date-nsec"]?.uint64Value.flatMap({ UInt32(exactly: $0) })
        else { return nil }
        self.snapshot = Intent.Snapshot(
            id: id, name: name, dateSeconds: seconds, dateNanoseconds: nanoseconds)
    }
}
