import ColdframeKit
import QAPI

/// Gives an image that nobody has open other options.
///
/// In this order, which is QEMU's: version 3, then names, flags and refcounts, which one write of the header switches
/// together, then the disk's size, then version 2. Each step leaves a whole image.
struct Qcow2Amend {
    private let nodes: AmendedImage
    private let request: AmendRequest
    private let progress: AmendProgress

    init(_ nodes: AmendedImage, _ request: AmendRequest, progress: @escaping AmendProgress) {
        self.nodes = nodes
        self.request = request
        self.progress = progress
    }

    func run() throws(ColdframeError) {
        let image = try Qcow2Image.read(nodes.file)
        try request.check(image, nodes)
        if image.header.version < 3, request.version == 3, image.header.snapshotCount > 0 {
            // In version 3 each snapshot says how large its disk is.
            try withDriver { (driver) throws(ColdframeError) in try driver.noteSnapshotSizes() }
        }
        try switchHeader()
        if let byteCount = request.diskByteCount, byteCount != image.header.diskByteCount {
            try withDriver { (driver) throws(ColdframeError) in try Self.resize(driver, to: byteCount) }
        }
        if request.version == 2, image.header.version > 2 { try downgrade() }
    }

    /// Opens the image for one step and closes it again.
    private func withDriver(_ body: (Qcow2Driver) throws(ColdframeError) -> Void) throws(ColdframeError) {
        let driver = try Qcow2Driver(
            Qcow2Image.read(nodes.file), backing: nodes.backing, dataFile: nodes.dataFile, options: .init())
        do {
            try body(driver)
        } catch {
            try? driver.close()
            throw error
        }
        try driver.close()
    }

    // MARK: Names, flags, refcounts

    private func switchHeader() throws(ColdframeError) {
        let image = try Qcow2Image.read(nodes.file)
        let old = HeaderCluster(
            header: image.header, extensions: image.extensions, backingFilename: image.backingFilename)
        var new = old
        changeFields(&new.header)
        changeNames(&new)
        if old.header.version < 3, new.header.version >= 3 { new.extensions.setFeatureNames(true) }
        if let order = request.refcountBits?.trailingZeroBitCount, order != Int(old.header.refcountOrder) {
            let refcounts = try rebuiltRefcounts(image, order: order)
            new.header.refcountTableOffset = refcounts.refcountTableOffset
            new.header.refcountTableClusterCount = refcounts.refcountTableClusterCount
            new.header.refcountOrder = refcounts.refcountOrder
        }
        guard new.header != old.header || new.extensions != old.extensions || new.nameBytes != old.nameBytes else {
            return
        }
        // What we do not know may be untrue from here on.
        new.header.autoclear &= Header.bitmapsAutoclear | Header.rawExternalDataAutoclear
        try switchHeader(of: image, to: new)
    }

    /// Throws with the old header in the file, or with the new one where the disk fails for longer: each is whole.
    private func switchHeader(of image: Qcow2Image, to new: HeaderCluster) throws(ColdframeError) {
        var change = HeaderSwitch(image.file, image.header.geometry)
        defer {
            if let owed = change.owed {
                try? image.file.write(owed, at: HostOffset(0))
                try? image.file.flush()
            }
        }
        _ = try change.run(from: image.header, to: new)
    }

    private func changeFields(_ header: inout Header) {
        if request.version == 3, header.version < 3 {
            header.version = 3
            header.headerByteCount = Header.newByteCount
        }
        switch request.hasLazyRefcounts {
        case true?: header.compatible |= Header.lazyRefcountsFeature
        // We never leave an image dirty, so its refcounts are right.
        case false?: header.compatible &= ~Header.lazyRefcountsFeature
        case nil: break
        }
        if request.isDataFileRaw == false { header.autoclear &= ~Header.rawExternalDataAutoclear }
    }

    private func changeNames(_ cluster: inout HeaderCluster) {
        if let name = request.backingFilename { cluster.backingFilename = name.isEmpty ? nil : name }
        if cluster.backingFilename == nil {
            if cluster.extensions.backingFormat != nil { cluster.extensions.setBackingFormat(nil) }
        } else if let format = request.backingFormat, format != cluster.extensions.backingFormat {
            cluster.extensions.setBackingFormat(format.isEmpty ? nil : format)
        }
        if let name = request.dataFilename, name != cluster.extensions.externalDataFilename ?? "" {
            cluster.extensions.setExternalDataFilename(name.isEmpty ? nil : name)
        }
    }

    /// Refcounts of another width, written beside the old ones; the header says where they are.
    private func rebuiltRefcounts(_ image: Qcow2Image, order: Int) throws(ColdframeError) -> Header {
        // What a cluster is free for must be gone for good.
        try image.file.flush()
        let check = try Qcow2Check.pass(image, Watcher(progress))
        guard check.result.checkErrorCount + check.result.corruptionCount == 0, check.wrongFlags.isEmpty else {
            throw ColdframeError(
                .corrupt,
                "The image's bookkeeping is wrong: mend it with 'coldframe image check --repair all' before its refcounts "
                    + "are changed")
        }
        var rebuilding = RefcountRebuilding(check, refcountOrder: order)
        return try rebuilding.write(image.header)
    }

    private final class Watcher: ImageCheckObserver {
        private let progress: AmendProgress
        init(_ progress: @escaping AmendProgress) { self.progress = progress }
        func found(_ finding: String) {}
        func progressed(done: UInt64, total: UInt64) throws(ColdframeError) { try progress(done, total) }
    }

    // MARK: Size and version 2

    /// Stored bitmaps take the new size as well.
    private static func resize(_ driver: Qcow2Driver, to byteCount: UInt64) throws(ColdframeError) {
        let bitmaps = try driver.loadBitmaps()
        try driver.resize(toByteCount: byteCount)
        for bitmap in bitmaps where !bitmap.state.isInconsistent {
            bitmap.updateBits { $0.resize(toDiskByteCount: byteCount) }
        }
        try driver.storeBitmaps(bitmaps)
    }

    private func downgrade() throws(ColdframeError) {
        try withDriver { (driver) throws(ColdframeError) in try driver.expandZeroClusters(progress) }
        let image = try Qcow2Image.read(nodes.file)
        var new = HeaderCluster(
            header: image.header, extensions: image.extensions, backingFilename: image.backingFilename)
        new.header.version = 2
        new.header.headerByteCount = UInt32(Header.version2ByteCount)
        new.header.incompatible = []
        new.header.compatible = 0
        new.header.autoclear = 0
        new.header.compressionType = 0
        new.extensions.setFeatureNames(false)
        try switchHeader(of: image, to: new)
    }
}

extension Qcow2Driver {
    /// Writes the table of snapshots anew, with the size of each one's disk.
    fileprivate func noteSnapshotSizes() throws(ColdframeError) {
        try writer.prepare()
        try operations.reach(l1EntryCount: 0)
    }
}

extension Qcow2Factory: ImageAmending {
    public func amend(
        _ image: AmendedImage, _ options: BlockdevAmendOptions, progress: @escaping AmendProgress
    ) throws(ColdframeError) {
        let branch: BlockdevAmendOptionsQcow2 = try own(options.branch)
        try Qcow2Amend(image, AmendRequest(branch), progress: progress).run()
    }
}

extension AmendRequest {
    init(_ branch: BlockdevAmendOptionsQcow2) {
        version = branch.version.map { $0 == .v2 ? 2 : 3 }
        hasLazyRefcounts = branch.lazyRefcounts
        refcountBits = branch.refcountBits
        diskByteCount = branch.size
        backingFilename = branch.backingFile
        backingFormat = branch.backingFmt
        dataFilename = branch.dataFile
        isDataFileRaw = branch.dataFileRaw
        changesEncryption = branch.encrypt != nil
    }
}
