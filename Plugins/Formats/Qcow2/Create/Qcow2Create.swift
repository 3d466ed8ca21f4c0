import ColdframeKit
import LinuxSystem

/// Makes new images.
public enum Qcow2Create {
    /// Writes an empty image into `node`, which is made as long as needed. Blocks. Durable when it returns; the header is
    /// written last, so that a crash leaves no half image.
    ///
    /// With `dataFile` the guest's data lies there: that file gets the disk's size and keeps its content, which only a
    /// raw data file shows. `advance` is called with the bytes that were prepared since its last call.
    public static func write(
        _ wanted: Options, into node: BlockNode, dataFile: BlockNode? = nil,
        advance: (UInt64) -> Void = { _ in }
    ) throws(ColdframeError) {
        var options = wanted
        let geometry = try checked(&options, hasDataFile: dataFile != nil)
        let layout = CreateLayout(options, geometry)
        let first = try headerCluster(options, geometry, layout, dataFilename: dataFile?.driver.displayFilename)
        let file = ImageFile(node)
        // Whatever the file held is gone before the new header claims it.
        try file.truncate(toByteCount: 0)
        let byteCount = layout.clusterCount << UInt64(geometry.clusterBits)
        if file.byteCount > 0 {
            try file.writeZeroes(at: HostOffset(0), byteCount: min(file.byteCount, byteCount))
        }
        try file.ensureByteCount(byteCount)
        try writing("refcount table") { () throws(ColdframeError) in try writeTables(layout, options, file) }
        if let dataFile {
            let data = ImageFile(dataFile)
            try data.truncate(toByteCount: options.diskByteCount)
            let previous = data.byteCount
            try data.ensureByteCount(options.diskByteCount)
            if previous < options.diskByteCount {
                try reserve(options.preallocation, previous..<options.diskByteCount, data, advance)
            }
            try data.flush()
        } else {
            let start = layout.firstData << UInt64(geometry.clusterBits)
            try reserve(options.preallocation, start..<byteCount, file, advance)
        }
        // The first sector, which a disk writes whole or not at all, makes it an image.
        let sector = min(first.count, HeaderSpace.sectorByteCount)
        try writing("qcow2 header") { () throws(ColdframeError) in
            if first.count > sector {
                try file.write(Array(first[sector...]), at: HostOffset(UInt64(sector)))
            }
            try file.flush()
            try file.write(Array(first[..<sector]), at: HostOffset(0))
            try file.flush()
        }
    }

    /// Says of an I/O error what was being written, in QEMU's words.
    private static func writing(
        _ part: String, _ body: () throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        do { try body() } catch {
            guard error.code == .io else { throw error }
            throw ColdframeError(
                error.code, "Could not write \(part): \(SystemError.text(errno: error.errno))", errno: error.errno)
        }
    }

    private static func writeTables(
        _ layout: CreateLayout, _ options: Options, _ file: ImageFile
    ) throws(ColdframeError) {
        let geometry = layout.geometry
        for index in 0..<layout.blockCount {
            try layout.block(index).write(
                to: file, at: geometry.hostOffset(ofCluster: layout.firstBlock + index))
        }
        let blockOffsets = (0..<layout.blockCount).map {
            geometry.hostOffset(ofCluster: layout.firstBlock + $0).rawValue
        }
        try file.writeWords(blockOffsets, at: geometry.hostOffset(ofCluster: layout.firstTable))
        guard layout.l2TableCount > 0 else { return }
        try file.writeWords(layout.l1, at: geometry.hostOffset(ofCluster: layout.firstL1))
        for index in 0..<layout.l2TableCount {
            try file.writeWords(
                layout.l2Table(index, showsBacking: options.backingFilename != nil),
                at: geometry.hostOffset(ofCluster: layout.firstL2 + index))
        }
    }

    /// Takes the host's space for a range that reads as zeros.
    private static func reserve(
        _ mode: Preallocation, _ range: Range<UInt64>, _ file: ImageFile, _ advance: (UInt64) -> Void
    ) throws(ColdframeError) {
        guard mode == .falloc || mode == .full, !range.isEmpty else { return }
        let step: UInt64 = mode == .full ? 1 << 20 : 1 << 30
        let zeros = [UInt8](repeating: 0, count: mode == .full ? Int(step) : 0)
        var position = range.lowerBound
        while position < range.upperBound {
            let count = min(step, range.upperBound - position)
            if mode == .full {
                try zeros.withBytes { bytes throws(ColdframeError) in
                    try file.write(UnsafeRawBufferPointer(rebasing: bytes[..<Int(count)]), at: HostOffset(position))
                }
            } else {
                try file.writeZeroes(at: HostOffset(position), byteCount: count)
            }
            advance(count)
            position += count
        }
    }

    private static func headerCluster(
        _ options: Options, _ geometry: Geometry, _ layout: CreateLayout, dataFilename: String?
    ) throws(ColdframeError) -> [UInt8] {
        var header = Header(version: options.version, geometry: geometry, diskByteCount: options.diskByteCount)
        header.l1EntryCount = UInt32(layout.l1EntryCount)
        header.l1Offset = geometry.hostOffset(ofCluster: layout.firstL1)
        header.refcountTableOffset = geometry.hostOffset(ofCluster: layout.firstTable)
        header.refcountTableClusterCount = UInt32(layout.tableClusterCount)
        if options.hasExtendedL2 { header.incompatible.insert(.extendedL2) }
        if geometry.hasExternalData { header.incompatible.insert(.externalDataFile) }
        if options.compressesWithZstd {
            header.incompatible.insert(.compressionType)
            header.compressionType = Compression.zstd.rawValue
        }
        if options.hasLazyRefcounts { header.compatible |= Header.lazyRefcountsFeature }
        if options.isDataFileRaw { header.autoclear |= Header.rawExternalDataAutoclear }
        let extensions = HeaderExtensions(
            backingFormat: options.backingFilename == nil ? nil : options.backingFormat,
            externalDataFilename: dataFilename, version: options.version,
            clusterByteCount: options.clusterByteCount)
        var cluster = HeaderCluster(
            header: header, extensions: extensions, backingFilename: options.backingFilename)
        return try cluster.encode()
    }
}
