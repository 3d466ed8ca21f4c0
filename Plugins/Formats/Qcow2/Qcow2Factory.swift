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

    public func recognises(head: [UInt8]) -> Bool { head.starts(with: [0x51, 0x46, 0x49, 0xFB]) }

    @AgentActor
    public func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsQcow2 = try own(options.branch)
        var settings = try Self.settings(branch)
        settings.overlapChecks = Self.overlapChecks(branch.overlapCheck)
        settings.takesDiscards = options.discard == .unmap
        settings.discardPolicy = DiscardPolicy(
            request: branch.passDiscardRequest ?? settings.takesDiscards,
            snapshot: branch.passDiscardSnapshot ?? true, other: branch.passDiscardOther ?? false)
        settings.reportCorruption = context.corruptionReport()
        let file = try await context.child("file", branch.file, role: .image)
        let image = try await BlockingPool.shared.run { () throws(ColdframeError) in try Qcow2Image.read(file) }
        let dataFile = try await Self.dataFile(branch, image, context)
        settings.isReadOnly = try Self.isReadOnly(image, [file] + (dataFile.map { [$0] } ?? []), context)
        let backing = try await Self.backing(branch, image, context)
        let final = settings
        let driver = try await BlockingPool.shared.run { () throws(ColdframeError) in
            try Qcow2Driver(image, backing: backing, dataFile: dataFile, options: final)
        }
        CacheCleaning.start(driver, everySeconds: UInt64(clamping: branch.cacheCleanInterval ?? Self.cleanSeconds))
        return driver
    }

    /// QEMU's default.
    private static let cleanSeconds: Int64 = 600

    /// What writes must not fall on: QEMU's templates and flags.
    static func overlapChecks(_ option: Qcow2OverlapChecks?) -> MetadataKinds {
        func template(_ mode: Qcow2OverlapCheckMode?) -> MetadataKinds {
            switch mode ?? .cached {
            case .none: []
            case .constant: .constant
            case .cached: .cached
            case .all: .all
            }
        }
        switch option {
        case nil: return .cached
        case .mode(let mode): return template(mode)
        case .flags(let flags):
            var checks = template(flags.template)
            for (flag, kind) in [
                (flags.mainHeader, MetadataKinds.mainHeader), (flags.activeL1, .activeL1), (flags.activeL2, .activeL2),
                (flags.refcountTable, .refcountTable), (flags.refcountBlock, .refcountBlock),
                (flags.snapshotTable, .snapshotTable), (flags.inactiveL1, .inactiveL1),
                (flags.inactiveL2, .inactiveL2), (flags.bitmapDirectory, .bitmaps),
            ] {
                switch flag {
                case true?: checks.insert(kind)
                case false?: checks.remove(kind)
                case nil: break
                }
            }
            return checks
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
        _ image: Qcow2Image, _ files: [BlockNode], _ context: any OpenContext
    ) throws(ColdframeError) -> Bool {
        if context.isReadOnly { return true }
        do throws(ColdframeError) {
            try image.checkWritable()
            for file in files where file.isReadOnly {
                throw ColdframeError(.permission, "Block node '\(file.name)' is read-only")
            }
            return false
        } catch {
            guard context.autoReadOnly else { throw error }
            return true
        }
    }

    /// The option wins over the image.
    @AgentActor
    private static func dataFile(
        _ branch: BlockdevOptionsQcow2, _ image: Qcow2Image, _ context: any OpenContext
    ) async throws -> BlockNode? {
        if let reference = branch.dataFile {
            guard image.hasDataFile else {
                throw ColdframeError(
                    .invalidArgument, "'data-file' can only be set for images with an external data file")
            }
            return try await context.child("data-file", reference, role: .data)
        }
        guard image.hasDataFile else { return nil }
        guard let filename = image.dataFilename else {
            throw ColdframeError(.invalidArgument, "'data-file' is required for this image")
        }
        return try await context.dataFileNamedByImage(
            filename: filename, imageFilename: image.file.node.driver.displayFilename)
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
}
