import ColdframeKit

/// Where guest data lies: among the metadata in the image file, or in a file of its own at the guest's offsets. The
/// format text's "external data file".
struct DataFile: Sendable {
    let file: ImageFile
    let isExternal: Bool
    /// Readable by itself as a raw image of the disk: zeros are written to it too, not only noted in L2 entries.
    let isRaw: Bool

    /// Data in the image file itself.
    init(inImage file: ImageFile) {
        self.file = file
        isExternal = false
        isRaw = false
    }

    init(external node: BlockNode, isRaw: Bool) {
        file = ImageFile(node)
        isExternal = true
        self.isRaw = isRaw
    }

    /// The host clusters of guest clusters `run` in an external file, which reaches over them when this returns.
    func place(_ run: ClusterRun, _ geometry: Geometry) throws(ColdframeError) -> HostOffset {
        try file.ensureByteCount(run.end << UInt64(geometry.clusterBits))
        return geometry.hostOffset(ofCluster: run.first)
    }
}
