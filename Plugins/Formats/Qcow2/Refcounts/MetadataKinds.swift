/// Structures of an image that writes may fall on, and which of them are guarded (`overlap-check`).
struct MetadataKinds: OptionSet, Sendable, Hashable {
    let rawValue: UInt16
    static let mainHeader = Self(rawValue: 1)
    static let activeL1 = Self(rawValue: 1 << 1)
    static let activeL2 = Self(rawValue: 1 << 2)
    static let refcountTable = Self(rawValue: 1 << 3)
    static let refcountBlock = Self(rawValue: 1 << 4)
    static let snapshotTable = Self(rawValue: 1 << 5)
    static let inactiveL1 = Self(rawValue: 1 << 6)
    static let inactiveL2 = Self(rawValue: 1 << 7)
    /// Bitmaps' directory and tables.
    static let bitmaps = Self(rawValue: 1 << 8)

    /// QEMU's templates: what is known without a look at the file, what the file has to be opened for, and what costs a
    /// read of every snapshot's tables.
    static let constant: Self = [.mainHeader, .activeL1, .refcountTable, .snapshotTable, .bitmaps]
    static let cached: Self = [.constant, .activeL2, .refcountBlock, .inactiveL1]
    static let all: Self = [.cached, .inactiveL2]

    /// As QEMU calls them.
    var names: String {
        let table: [(Self, String)] = [
            (.mainHeader, "qcow2_header"), (.activeL1, "active L1 table"), (.activeL2, "active L2 table"),
            (.refcountTable, "refcount table"), (.refcountBlock, "refcount block"),
            (.snapshotTable, "snapshot table"), (.inactiveL1, "inactive L1 table"), (.inactiveL2, "inactive L2 table"),
            (.bitmaps, "bitmap directory"),
        ]
        return table.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}
