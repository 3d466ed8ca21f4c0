import ColdframeKit
import QAPI
import QMPWire

/// What an operation over several images is about to do, as the journal records it before it is done.
struct Intent: Sendable, Equatable {
    enum Operation: String, Sendable { case save, load, delete, transaction }

    /// The set's or operation's UUID.
    let uuid: String
    let operation: Operation
    let tag: String
    /// One per image.
    var images: [Image]

    /// An image as an intent names it: by device and inode, never by its path alone.
    struct Image: Sendable, Equatable {
        var nodeName: String
        var path: String
        var device: UInt64
        var inode: UInt64
        /// The snapshot that the operation makes or removes, once it is known.
        var snapshotID: String?
        var snapshotDateSeconds: UInt32?
    }
}

extension Intent {
    var json: JSONObject {
        [
            "uuid": .string(uuid), "operation": .string(operation.rawValue), "tag": .string(tag),
            "images": .array(
                images.map { image in
                    var object: JSONObject = [
                        "node": .string(image.nodeName), "path": .string(image.path),
                        "device": JSONValue(image.device), "inode": JSONValue(image.inode),
                    ]
                    if let id = image.snapshotID { object["snapshot-id"] = .string(id) }
                    if let date = image.snapshotDateSeconds { object["date"] = .integer(Int64(date)) }
                    return .object(object)
                }),
        ]
    }

    init?(json: JSONValue) {
        guard let uuid = json["uuid"]?.stringValue, let tag = json["tag"]?.stringValue,
            let operation = json["operation"]?.stringValue.flatMap(Operation.init(rawValue:)),
            let images = json["images"]?.arrayValue
        else { return nil }
        self.uuid = uuid
        self.tag = tag
        self.operation = operation
        self.images = []
        for image in images {
            guard let node = image["node"]?.stringValue, let path = image["path"]?.stringValue,
                let device = image["device"]?.uint64Value, let inode = image["inode"]?.uint64Value
            else { return nil }
            self.images.append(
                Image(
                    nodeName: node, path: path, device: device, inode: inode,
                    snapshotID: image["snapshot-id"]?.stringValue,
                    snapshotDateSeconds: image["date"]?.uint64Value.flatMap { UInt32(exactly: $0) }))
        }
    }
}
