/// What a client may ask for by BLOCK_STATUS, and what it has chosen of it.
struct MetaContexts: Equatable, Sendable {
    static let allocationName = "base:allocation"
    static let allocationID: UInt32 = 0
    private static let bitmapPrefix = "qemu:dirty-bitmap:"

    /// `base:allocation`.
    var reportsAllocation = false
    /// Positions of the chosen ones among the export's bitmaps, in order.
    var bitmaps: [Int] = []

    var isEmpty: Bool { !reportsAllocation && bitmaps.isEmpty }

    /// All that an export has.
    static func all(of export: NamedExport) -> MetaContexts {
        MetaContexts(reportsAllocation: true, bitmaps: Array(export.bitmaps.indices))
    }

    /// Adds what a client's query means. Where it only lists, a namespace or a prefix stands for all in it.
    mutating func add(_ query: String, of export: NamedExport, lists: Bool) {
        if query == Self.allocationName || (lists && query == "base:") {
            reportsAllocation = true
        } else if lists, query == "qemu:" || query == Self.bitmapPrefix {
            bitmaps = Array(export.bitmaps.indices)
        } else if let index = export.bitmaps.firstIndex(where: { Self.bitmapPrefix + $0.name == query }),
            !bitmaps.contains(index)
        {
            bitmaps = (bitmaps + [index]).sorted()
        }
    }

    /// Id and name of each, as the handshake tells them.
    func named(of export: NamedExport) -> [(id: UInt32, name: String)] {
        (reportsAllocation ? [(Self.allocationID, Self.allocationName)] : [])
            + bitmaps.map { (Self.id(ofBitmap: $0), Self.bitmapPrefix + export.bitmaps[$0].name) }
    }

    static func id(ofBitmap index: Int) -> UInt32 { UInt32(index) + 1 }
}
