import ColdframeKit
import LinuxSystem
import QAPI

/// The module of the qcow2 format.
public enum Qcow2FormatModule {
    public static var module: Module {
        Module(name: "Formats/Qcow2", schema: GeneratedSchema.fragment, blockDrivers: [Qcow2Factory()])
    }
}

/// Opens and makes qcow2 images for the graph.
public struct Qcow2Factory: BlockDriverFactory {
    public let driverName = "qcow2"
    public let isFormat = true

    public init() {}

    @AgentActor
    public func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        guard let branch = options.branch as? BlockdevOptionsQcow2 else {
            throw ColdframeError(.invalidArgument, "Driver 'qcow2' got the options of another driver")
        }
        var settings = try Self.settings(branch)
        settings.passesDiscards = options.discard == .unmap
        if branch.dataFile != nil {
            throw ColdframeError(.unsupported, "'data-file' can only be set for images with an external data file")
        }
        let file = try await context.child("file", branch.file, role: .image)
        let image = try await BlockingPool.shared.run { () throws(ColdframeError) in try Qcow2Image.read(file) }
        settings.isReadOnly = try Self.isReadOnly(image, file, context)
        let backing = try await Self.backing(branch, image, context)
        let final = settings
        return try await BlockingPool.shared.run { () throws(ColdframeError) in
            try Qcow2Driver(image, backing: backing, options: final)
        }
    }

    /// Bounds of the caches, with QEMU's rules for options that contradict each other.
    static func settings(_ branch: BlockdevOptionsQcow2) throws(ColdframeError) -> Qcow2Driver.Options {
        for (name, value) in [
            ("cache-size", branch.cacheSize), ("l2-cache-size", branch.l2CacheSize),
            ("refcount-cache-size", branch.refcountCacheSize),
        ] where !(0...(1 << 40)).contains(value ?? 0) {
            throw ColdframeError(.invalidArgument, "'\(name)' must lie between 0 and 1 TiB")
        }
        var settings = Qcow2Driver.Options()
        if let total = branch.cacheSize.map({ Int($0) }) {
            let l2 = branch.l2CacheSize.map { Int($0) }
            let refcounts = branch.refcountCacheSize.map { Int($0) }
            if l2 != nil, refcounts != nil {
                throw ColdframeError(
                    .invalidArgument,
                    "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
            }
            if let l2, l2 > total { throw ColdframeError(.invalidArgument, "l2-cache-size may not exceed cache-size") }
            if let refcounts, refcounts > total {
                throw ColdframeError(.invalidArgument, "refcount-cache-size may not exceed cache-size")
            }
            settings.refcountCacheByteLimit = refcounts ?? l2.map { total - $0 } ?? total / 4
            settings.l2CacheByteLimit = l2 ?? total - settings.refcountCacheByteLimit
        } else {
            settings.l2CacheByteLimit = branch.l2CacheSize.map { Int($0) } ?? settings.l2CacheByteLimit
            settings.refcountCacheByteLimit =
                branch.refcountCacheSize.map { Int($0) } ?? settings.refcountCacheByteLimit
        }
        return settings
    }

    @AgentActor
    private static func isReadOnly(
        _ image: Qcow2Image, _ file: BlockNode, _ context: any OpenContext
    ) throws(ColdframeError) -> Bool {
        if context.isReadOnly { return true }
        do throws(ColdframeError) {
            try image.checkWritable()
            if file.isReadOnly {
                throw ColdframeError(.permission, "Block node '\(file.name)' is read-only")
            }
            return false
        } catch {
            guard context.autoReadOnly else { throw error }
            return true
        }
    }

    /// The option wins over the image: `null` means none, absent what the image names.
    @AgentActor
    private static func backing(
        _ branch: BlockdevOptionsQcow2, _ image: Qcow2Image, _ context: any OpenContext
    ) async throws -> BlockNode? {
        switch branch.backing {
        case .definition(let options): return try await context.child("backing", .definition(options), role: .backing)
        case .reference(let name): return try await context.child("backing", .reference(name), role: .backing)
        case .null: return nil
        case nil:
            guard let filename = image.backingFilename, !filename.isEmpty else { return nil }
            return try await context.backingNamedByImage(
                filename: filename, format: image.backingFormat,
                imageFilename: image.file.node.driver.displayFilename)
        }
    }

    // MARK: Create

    @AgentActor
    public func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        guard let branch = options.branch as? BlockdevCreateOptionsQcow2 else {
            throw ColdframeError(.invalidArgument, "Driver 'qcow2' got the options of another driver")
        }
        let settings = try Self.createSettings(branch)
        let target = try await context.target(branch.file)
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            try Qcow2Create.write(settings, into: target)
        }
    }

    static func createSettings(_ branch: BlockdevCreateOptionsQcow2) throws(ColdframeError) -> Qcow2Create.Options {
        func refuse(_ isSet: Bool, _ what: String) throws(ColdframeError) {
            if isSet { throw ColdframeError(.unsupported, "\(what) is not supported for new qcow2 images") }
        }
        try refuse(branch.dataFile != nil || branch.dataFileRaw == true, "An external data file")
        try refuse(branch.extendedL2 == true, "Extended L2 ('extended-l2')")
        try refuse(branch.lazyRefcounts == true, "'lazy-refcounts'")
        try refuse(branch.compressionType == .zstd, "Compression type 'zstd'")
        try refuse(
            ![nil, .off].contains(branch.preallocation), "Preallocation mode '\(branch.preallocation?.rawValue ?? "")'")
        var settings = Qcow2Create.Options(diskByteCount: branch.size)
        settings.version = branch.version == .v2 ? 2 : 3
        settings.clusterByteCount = branch.clusterSize ?? settings.clusterByteCount
        if let bits = branch.refcountBits {
            guard let bits = UInt64(exactly: bits) else {
                throw ColdframeError(
                    .invalidArgument, "Refcount width must be a power of two and may not exceed 64 bits")
            }
            settings.refcountBits = bits
        }
        if branch.backingFile == nil, branch.backingFmt != nil {
            throw ColdframeError(.invalidArgument, "Backing format cannot be used without backing file")
        }
        settings.backingFilename = branch.backingFile
        settings.backingFormat = branch.backingFmt
        return settings
    }
}
