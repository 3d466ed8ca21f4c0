import ColdframeKit

/// An open vpc image, read-only. Any number of threads: nothing changes after it was opened.
final class VpcDriver: PlacedDriver, ReadOnlyDriver, HoleBearing {
    let driverName = "vpc"
    let threadModel = ThreadModel.parallel
    private let image: VpcImage

    init(_ image: VpcImage) { self.image = image }

    var file: BlockNode { image.file }
    var byteCount: UInt64 { image.footer.diskByteCount }
    var clusterByteCount: UInt32? { image.blocks.map { UInt32($0.byteCount) } }
    /// A fixed image lies in the file in one piece.
    func fileWithHoles() -> BlockNode? { image.blocks == nil ? file : nil }

    func information() throws(ColdframeError) -> BlockInformation {
        BlockInformation(allocatedByteCount: try file.driver.information().allocatedByteCount)
    }

    func place(_ range: Range<UInt64>) throws(ColdframeError) -> Place { image.place(range) }
}
