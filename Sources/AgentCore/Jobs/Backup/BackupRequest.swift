import ColdframeKit
import QAPI

/// What a backup was asked for, checked as QEMU checks it, in its order and with its texts.
@AgentActor
struct BackupRequest {
    enum Extent {
        case full, top, none
        case bitmap
    }
    let common: BackupCommonValues
    let source: GraphNode
    let target: GraphNode
    let extent: Extent
    let bitmap: DirtyBitmap?
    let bitmapMode: BitmapSyncMode

    /// The target shows the source where it has nothing itself.
    let backsTarget: Bool

    init(
        _ common: BackupCommonValues, source: GraphNode, target: GraphNode, backsTarget: Bool = false
    ) throws {
        self.common = common
        self.backsTarget = backsTarget
        self.source = source
        self.target = target
        if common.sync == .bitmap || common.sync == .incremental, common.bitmap == nil {
            throw ColdframeError(
                .invalidArgument, "must provide a valid bitmap name for '\(common.sync.rawValue)' sync mode")
        }
        var mode = common.bitmapMode
        if common.sync == .incremental {
            guard mode == nil || mode == .onSuccess else {
                throw ColdframeError(
                    .invalidArgument, "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'")
            }
            mode = .onSuccess
        }
        extent =
            switch common.sync {
            case .full: .full
            case .top: .top
            case .none: .none
            case .incremental, .bitmap: .bitmap
            }
        if let name = common.bitmap {
            guard let bitmap = source.block.bitmaps.find(name) else {
                throw ColdframeError(.notFound, "Bitmap '\(name)' could not be found")
            }
            guard let mode else {
                throw ColdframeError(.invalidArgument, "Bitmap sync mode must be given when providing a bitmap")
            }
            try BitmapRegistry.check(bitmap, against: .use)
            if extent == .none {
                throw ColdframeError(
                    .invalidArgument, "sync mode 'none' does not produce meaningful bitmap outputs")
            }
            if mode == .never, extent != .bitmap {
                throw ColdframeError(
                    .invalidArgument,
                    "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode "
                        + "'\(common.sync.rawValue)'")
            }
            self.bitmap = bitmap
            bitmapMode = mode
        } else {
            if mode != nil {
                throw ColdframeError(.invalidArgument, "Cannot specify bitmap sync mode without a bitmap")
            }
            bitmap = nil
            bitmapMode = .never
        }
        try checkNodes()
    }

    private func checkNodes() throws {
        guard source !== target else {
            throw ColdframeError(.invalidArgument, "Source and target cannot be the same")
        }
        if common.compress, !(target.block.driver is any CompressedWriting) {
            throw ColdframeError(.unsupported, "Compression is not supported for this drive ")
        }
        try source.checkUnblocked(for: .backupSource)
        try target.checkUnblocked(for: .backupTarget)
        guard common.maxWorkers >= 1, common.maxWorkers <= Int64(Int32.max) else {
            throw ColdframeError(.invalidArgument, "max-workers must be between 1 and \(Int32.max)")
        }
        guard common.maxChunk >= 0 else {
            throw ColdframeError(.invalidArgument, "max-chunk must be zero (which means no limit) or positive")
        }
    }
}

/// The members that `blockdev-backup` and `drive-backup` share, with their defaults.
struct BackupCommonValues: Sendable {
    var jobID: String?
    var sync: MirrorSyncMode
    var speed: Int64
    var bitmap: String?
    var bitmapMode: BitmapSyncMode?
    var compress: Bool
    var onSourceError: JobErrorPolicy
    var onTargetError: JobErrorPolicy
    var autoFinalize: Bool
    var autoDismiss: Bool
    var filterNodeName: String?
    var maxWorkers: Int64
    var maxChunk: Int64
}

/// The members of `blockdev-backup` and `drive-backup` as the schema has them.
protocol BackupMembers {
    var jobId: String? { get }
    var sync: MirrorSyncMode { get }
    var speed: Int64? { get }
    var bitmap: String? { get }
    var bitmapMode: BitmapSyncMode? { get }
    var compress: Bool? { get }
    var onSourceError: BlockdevOnError? { get }
    var onTargetError: BlockdevOnError? { get }
    var autoFinalize: Bool? { get }
    var autoDismiss: Bool? { get }
    var filterNodeName: String? { get }
    var xPerf: BackupPerf? { get }
}

extension BlockdevBackup: BackupMembers {}
extension DriveBackup: BackupMembers {}

extension BackupMembers {
    var common: BackupCommonValues {
        BackupCommonValues(
            jobID: jobId, sync: sync, speed: speed ?? 0, bitmap: bitmap, bitmapMode: bitmapMode,
            compress: compress ?? false, onSourceError: JobErrorPolicy(onSourceError),
            onTargetError: JobErrorPolicy(onTargetError), autoFinalize: autoFinalize ?? true,
            autoDismiss: autoDismiss ?? true, filterNodeName: filterNodeName, maxWorkers: xPerf?.maxWorkers ?? 64,
            maxChunk: xPerf?.maxChunk ?? 0)
    }
}
