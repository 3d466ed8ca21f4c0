import ColdframeKit
import QMPWire

/// An open vmdk image, read-only. Any number of threads.
final class VmdkDriver: PlacedDriver, ReadOnlyDriver {
    let driverName = "vmdk"
    let threadModel = ThreadModel.parallel
    private let image: VmdkImage
    private let grains: GrainReader

    init(_ image: VmdkImage) {
        self.image = image
        grains = GrainReader(image)
    }

    var file: BlockNode { image.file }
    var byteCount: UInt64 { image.header.diskByteCount }
    let mayStandOnAnother = true

    func place(_ range: Range<UInt64>) throws(ColdframeError) -> Place { try image.place(range) }

    func readPacked(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try grains.read(into: buffer, at: offset)
    }

    var clusterByteCount: UInt32? { UInt32(image.header.grainByteCount) }

    func information() throws(ColdframeError) -> BlockInformation {
        let grainByteCount = image.header.grainByteCount
        var part: JSONObject = [:]
        if image.header.isCompressed { part["compressed"] = true }
        part["virtual-size"] = JSONValue(byteCount)
        part["filename"] = .string(displayFilename)
        part["cluster-size"] = JSONValue(grainByteCount)
        part["format"] = ""
        let data: JSONObject = [
            "cid": .integer(Int64(image.descriptor.contentID)),
            "parent-cid": .integer(Int64(image.descriptor.parentContentID)),
            "create-type": .string(image.descriptor.createType), "extents": .array([.object(part)]),
        ]
        return BlockInformation(
            allocatedByteCount: try file.driver.information().allocatedByteCount,
            formatSpecific: ("vmdk", data))
    }
}
