import ColdframeKit
import LinuxSystem
import QAPI

extension Qcow2Factory {
    @AgentActor
    public func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        let branch: BlockdevCreateOptionsQcow2 = try own(options.branch)
        var settings = try Self.createSettings(branch)
        // What is wrong with the options alone is said before any file is opened.
        _ = try Qcow2Create.checked(&settings, hasDataFile: branch.dataFile != nil)
        let target = try await context.target(branch.file)
        let dataFile: BlockNode? =
            if let reference = branch.dataFile { try await context.target(reference) } else { nil }
        let final = settings
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            try Qcow2Create.write(final, into: target, dataFile: dataFile) { byteCount in
                Task { @AgentActor in context.advance(byteCount: byteCount) }
            }
        }
    }

    static func createSettings(_ branch: BlockdevCreateOptionsQcow2) throws(ColdframeError) -> Qcow2Create.Options {
        var settings = Qcow2Create.Options(diskByteCount: branch.size)
        settings.version = branch.version == .v2 ? 2 : 3
        settings.clusterByteCount = branch.clusterSize ?? settings.clusterByteCount
        // A negative width is as wrong as one that is too large.
        settings.refcountBits = UInt64(exactly: branch.refcountBits ?? 16) ?? 0
        settings.backingFilename = branch.backingFile
        settings.backingFormat = branch.backingFmt
        settings.hasExtendedL2 = branch.extendedL2 ?? false
        settings.hasLazyRefcounts = branch.lazyRefcounts ?? false
        settings.compressesWithZstd = branch.compressionType == .zstd
        settings.isDataFileRaw = branch.dataFileRaw ?? false
        settings.preallocation =
            switch branch.preallocation {
            case nil, .off: .off
            case .metadata: .metadata
            case .falloc: .falloc
            case .full: .full
            }
        return settings
    }
}
