import ColdframeKit

/// What is to become of an image; nil leaves a thing as it is.
struct AmendRequest: Sendable {
    /// 2 or 3.
    var version: UInt32?
    var hasLazyRefcounts: Bool?
    var refcountBits: Int64?
    /// Size of the virtual disk in bytes.
    var diskByteCount: UInt64?
    /// Empty for no backing file.
    var backingFilename: String?
    var backingFormat: String?
    /// Empty to name none.
    var dataFilename: String?
    var isDataFileRaw: Bool?
    var changesEncryption = false
}

/// Whether an image can become what is asked for, with QEMU's texts where it has one. Nothing has been changed yet.
extension AmendRequest {
    func check(_ image: Qcow2Image, _ nodes: AmendedImage) throws(ColdframeError) {
        let header = image.header
        // Encrypted images are not opened, so this is none.
        guard !changesEncryption else {
            throw ColdframeError(.unsupported, "image is not encrypted, can't amend", errno: 95)
        }
        guard header.incompatible.isDisjoint(with: [.dirty, .corrupt]) else {
            throw ColdframeError(
                .corrupt, "The image is damaged or was not closed: mend it with 'coldframe image check --repair all'")
        }
        try refuse(!(2...3).contains(version ?? 3), "Unknown compatibility level \(version ?? 3)")
        try checkFeatures(header)
        try checkNames(image)
        try checkSize(image, nodes)
        if (version ?? header.version) < header.version { try checkDowngrade(image, nodes) }
    }

    private func checkFeatures(_ header: Header) throws(ColdframeError) {
        let finalVersion = version ?? header.version
        if let bits = refcountBits {
            try refuse(
                !(1...64).contains(bits) || bits & (bits - 1) != 0,
                "Refcount width must be a power of two and may not exceed 64 bits")
        }
        let finalBits = refcountBits ?? 1 << Int64(header.refcountOrder)
        try refuse(
            finalVersion < 3 && finalBits != 16,
            "Refcount widths other than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)")
        try refuse(
            finalVersion < 3 && hasLazyRefcounts == true,
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)")
    }

    private func checkNames(_ image: Qcow2Image) throws(ColdframeError) {
        let hasDataFile = image.hasDataFile
        let isRaw = hasDataFile && image.header.autoclear & Header.rawExternalDataAutoclear != 0
        try refuse(
            dataFilename != nil && !hasDataFile,
            "data-file can only be set for images that use an external data file")
        try refuse(isDataFileRaw == true && !isRaw, "data-file-raw cannot be set on existing images")
        let name = backingFilename ?? image.backingFilename ?? ""
        try refuse(
            !name.isEmpty && isRaw && isDataFileRaw != false,
            "An image with a raw external data file has no backing file")
        try refuse(name.utf8.count > Int(Limits.backingNameByteCount), "Backing file name too long")
        let format = backingFormat ?? image.backingFormat ?? ""
        try refuse(format.utf8.count >= 16, "Backing file format '\(format)' is too long")
        // Nobody would follow the name without one.
        try refuse(
            backingFilename?.isEmpty == false && format.isEmpty, "A backing file needs its format: give 'backing-fmt'")
        try refuse(
            backingFormat?.isEmpty == false && name.isEmpty, "The image has no backing file, and so no format of it")
    }

    private func checkSize(_ image: Qcow2Image, _ nodes: AmendedImage) throws(ColdframeError) {
        guard let diskByteCount else { return }
        try refuse(diskByteCount % 512 != 0, "The new size must be a multiple of 512")
        // What is new must hide what lies below, so that has to be known.
        try refuse(
            backingFilename != nil || backingFormat != nil,
            "The size and the backing file can't be changed in one step: do one after the other")
        try checkBacking(image, nodes)
    }

    private func checkBacking(_ image: Qcow2Image, _ nodes: AmendedImage) throws(ColdframeError) {
        try refuse(
            image.backingFilename?.isEmpty == false && nodes.backing == nil,
            "The image's backing file is not open, which decides what has to be written: open the image with it")
    }

    private func checkDowngrade(_ image: Qcow2Image, _ nodes: AmendedImage) throws(ColdframeError) {
        let header = image.header
        try refuse(image.hasDataFile, "Cannot downgrade an image with a data file")
        let features = header.incompatible.subtracting(.compressionType).rawValue
        try refuse(
            features != 0,
            "Cannot downgrade an image with incompatible features 0x\(String(features, radix: 16)) set")
        if let bitmaps = image.extensions.bitmaps, bitmaps.count > 0 {
            throw ColdframeError(.unsupported, "Cannot downgrade an image with persistent bitmaps: remove them first")
        }
        try refuse(
            backingFilename != nil, "The version can't be lowered and the backing file changed in one step")
        try checkBacking(image, nodes)
        let size = diskByteCount ?? header.diskByteCount
        let snapshots = try SnapshotTable.read(header, image.file).entries
        try refuse(
            snapshots.contains { $0.info.diskByteCount != size || $0.info.vmStateByteCount > UInt64(UInt32.max) },
            "Internal snapshots prevent downgrade of image")
        try VersionTwo.check(image, snapshots)
    }

    private func refuse(_ isWrong: Bool, _ text: String) throws(ColdframeError) {
        if isWrong { throw ColdframeError(.invalidArgument, text, errno: 22) }
    }
}
