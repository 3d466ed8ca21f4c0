import QAPI

/// What a user of a node needs to do with it, and what it lets others do (QEMU's `BLK_PERM_*`).
struct NodePermissions: OptionSet, Sendable {
    let rawValue: UInt8
    /// Its content does not change under the reader.
    static let consistentRead = NodePermissions(rawValue: 1)
    static let write = NodePermissions(rawValue: 2)
    /// Writes that do not change the content.
    static let writeUnchanged = NodePermissions(rawValue: 4)
    static let resize = NodePermissions(rawValue: 8)
    static let all: NodePermissions = [.consistentRead, .write, .writeUnchanged, .resize]

    /// As QEMU's error texts list them.
    var names: String {
        let table: [(NodePermissions, String)] = [
            (.consistentRead, "consistent read"), (.write, "write"), (.writeUnchanged, "write unchanged"),
            (.resize, "resize"),
        ]
        return table.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

extension NodePermissions {
    /// By their names on the wire.
    init(_ names: [BlockPermission]) {
        self = names.reduce(into: []) { permissions, name in
            switch name {
            case .consistentRead: permissions.insert(.consistentRead)
            case .write: permissions.insert(.write)
            case .writeUnchanged: permissions.insert(.writeUnchanged)
            case .resize: permissions.insert(.resize)
            }
        }
    }
}
