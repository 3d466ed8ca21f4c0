import ColdframeKit

/// A qcow2 file whose header has been read and checked, before it is known what its backing node is.
public struct Qcow2Image: Sendable {
    let header: Header
    let extensions: HeaderExtensions
    let file: ImageFile
    /// The backing file's name as the image has it; nil if it has none.
    public let backingFilename: String?
    /// The file with the guest's data as the image has it; nil if it has none, or does not say which.
    public var dataFilename: String? { extensions.externalDataFilename }
    var names: HeaderNames { HeaderNames(extensions: extensions, backingFilename: backingFilename) }
    /// Guest data lies in a file of its own.
    public var hasDataFile: Bool { header.incompatible.contains(.externalDataFile) }
    var compression: Compression { Compression(rawValue: header.compressionType) ?? .deflate }
    /// The backing file's format as the image has it.
    public var backingFormat: String? { extensions.backingFormat }
    /// Size of the virtual disk in bytes.
    public var diskByteCount: UInt64 { header.diskByteCount }

    /// Reads and checks the header. Blocks. Throws for images that this module cannot read at all, with QEMU's texts.
    public static func read(_ node: BlockNode) throws(ColdframeError) -> Qcow2Image {
        let file = ImageFile(node)
        let beginning = try file.readMetadata(
            byteCount: Int(min(file.byteCount, 112)), at: HostOffset(0), "qcow2 header")
        let header = try Header(beginning)
        let cluster = try file.readMetadata(
            byteCount: Int(min(file.byteCount, 1 << UInt64(header.clusterBits))), at: HostOffset(0), "qcow2 header")
        let extensions = try HeaderExtensions(cluster: cluster, header: header)
        try checkFeatures(header, extensions)
        return Qcow2Image(
            header: header, extensions: extensions, file: file,
            backingFilename: try readBackingFilename(cluster, header))
    }

    private static func checkFeatures(_ header: Header, _ extensions: HeaderExtensions) throws(ColdframeError) {
        let unknown = header.incompatible.subtracting(.known)
        guard unknown.isEmpty else {
            throw ColdframeError(
                .unsupported, "Unsupported qcow2 feature(s): " + extensions.describeIncompatible(unknown.rawValue))
        }
        let hasCompressionBit = header.incompatible.contains(.compressionType)
        if header.compressionType == 0, hasCompressionBit {
            throw ColdframeError(
                .corrupt, "qcow2: Compression type incompatible feature bit must not be set", errno: 22)
        }
        if header.compressionType != 0, !hasCompressionBit {
            throw ColdframeError(.corrupt, "qcow2: Compression type incompatible feature bit must be set", errno: 22)
        }
        guard Compression(rawValue: header.compressionType) != nil else {
            throw ColdframeError(.unsupported, "qcow2: unknown compression type: \(header.compressionType)")
        }
        guard header.refcountOrder <= 6 else {
            throw ColdframeError(
                .corrupt, "Reference count entry width too large; may not exceed 64 bits", errno: 22)
        }
        switch header.encryptionMethod {
        case 0: break
        case 1: throw ColdframeError(.unsupported, "AES-CBC encrypted qcow2 images are not supported")
        case 2: throw ColdframeError(.unsupported, "LUKS encrypted qcow2 images are not supported")
        default: throw ColdframeError(.unsupported, "Unsupported encryption method \(header.encryptionMethod)")
        }
        if header.incompatible.contains(.extendedL2), header.clusterBits < 14 {
            throw ColdframeError(
                .corrupt, "Unsupported subcluster size: \((1 << Int(header.clusterBits)) / 32)", errno: 22)
        }
        try checkTables(header)
    }

    private static func checkTables(_ header: Header) throws(ColdframeError) {
        let geometry = header.geometry
        guard header.refcountTableClusterCount > 0 else {
            throw ColdframeError(.corrupt, "Image does not contain a reference count table", errno: 22)
        }
        guard UInt64(header.refcountTableClusterCount) << UInt64(geometry.clusterBits) <= Limits.refcountTableByteCount
        else { throw ColdframeError(.corrupt, "Reference count table too large", errno: 27) }
        try checkOffset(header.refcountTableOffset, geometry, "Reference count table")
        guard UInt64(header.snapshotCount) <= Limits.snapshotCount else {
            throw ColdframeError(.corrupt, "Snapshot table too large", errno: 27)
        }
        try checkOffset(header.snapshotTableOffset, geometry, "Snapshot table")
        guard UInt64(header.l1EntryCount) * 8 <= Limits.l1ByteCount else {
            throw ColdframeError(.corrupt, "Active L1 table too large", errno: 27)
        }
        try checkOffset(header.l1Offset, geometry, "Active L1 table")
        guard header.diskByteCount <= UInt64(Int64.max),
            geometry.l1EntryCount(forByteCount: header.diskByteCount) <= UInt64(Int32.max)
        else { throw ColdframeError(.corrupt, "Image is too big", errno: 27) }
        guard UInt64(header.l1EntryCount) >= geometry.l1EntryCount(forByteCount: header.diskByteCount) else {
            throw ColdframeError(.corrupt, "L1 table is too small", errno: 22)
        }
    }

    private static func checkOffset(
        _ offset: HostOffset, _ geometry: Geometry, _ name: String
    ) throws(ColdframeError) {
        guard geometry.isClusterAligned(offset.rawValue), offset.rawValue <= UInt64(Int64.max) - Limits.l1ByteCount
        else {
            throw ColdframeError(.corrupt, "\(name) offset invalid", errno: 22)
        }
    }

    private static func readBackingFilename(_ cluster: [UInt8], _ header: Header) throws(ColdframeError) -> String? {
        guard header.backingNameOffset != 0 else { return nil }
        let byteCount = UInt64(header.backingNameByteCount)
        let room = (1 << UInt64(header.clusterBits)) - header.backingNameOffset
        guard byteCount <= min(Limits.backingNameByteCount, room) else {
            throw ColdframeError(.corrupt, "Backing file name too long", errno: 22)
        }
        guard header.backingNameOffset + byteCount <= UInt64(cluster.count) else {
            throw ColdframeError(.corrupt, "Could not read backing file name", errno: 22)
        }
        let start = Int(header.backingNameOffset)
        return String(decoding: cluster[start..<start + Int(byteCount)], as: UTF8.self)
    }

    /// Throws if the image may be read but not written, saying why and what to do.
    public func checkWritable() throws(ColdframeError) {
        if header.incompatible.contains(.corrupt) {
            throw ColdframeError(.permission, "qcow2: Image is corrupt; cannot be opened read/write", errno: 13)
        }
    }

    /// The image's refcounts may be behind its tables: whoever wrote it last counts lazily and did not come to its end.
    var isDirty: Bool { header.incompatible.contains(.dirty) }

    /// Mends the refcounts of a dirty image, and returns it as it then is. Others are returned as they are.
    func mended() throws(ColdframeError) -> Qcow2Image {
        guard isDirty, !header.incompatible.contains(.corrupt) else { return self }
        let result: ImageCheckResult
        do {
            result = try Qcow2Check.run(on: file.node, repair: .all, observer: Unobserved())
        } catch {
            throw error.prefixed("Could not repair dirty image")
        }
        guard result.corruptionCount == 0, result.checkErrorCount == 0 else {
            throw ColdframeError(
                .corrupt,
                "Could not repair dirty image: \(result.corruptionCount) errors are left; 'coldframe image check' lists them"
            )
        }
        return try Qcow2Image.read(file.node)
    }

    /// Where guest data lies. `node` is the data file that the user or the image named.
    func data(_ node: BlockNode?) throws(ColdframeError) -> DataFile {
        guard hasDataFile else {
            guard node == nil else {
                throw ColdframeError(
                    .invalidArgument, "'data-file' can only be set for images with an external data file")
            }
            return DataFile(inImage: file)
        }
        guard let node else {
            throw ColdframeError(.invalidArgument, "'data-file' is required for this image")
        }
        return DataFile(external: node, isRaw: header.autoclear & Header.rawExternalDataAutoclear != 0)
    }

    /// The active L1 table in host order.
    func readL1() throws(ColdframeError) -> [UInt64] {
        try file.readWords(count: Int(header.l1EntryCount), at: header.l1Offset, "Could not read L1 table: table")
    }
}
