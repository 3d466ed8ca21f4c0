import ColdframeKit
import LinuxSystem
import QAPI

/// Puts `blklogwrites` above a node.
struct BlklogwritesFactory: BlockDriverFactory {
    let driverName = "blklogwrites"
    let isFormat = false
    let isFilter = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsBlklogwrites = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .filtered)
        let log = try await context.child("log", branch.log, role: .image)
        let place: WriteLog.Place
        if branch.logAppend ?? false {
            guard branch.logSectorSize == nil else {
                throw ColdframeError(
                    .invalidArgument, "log-append and log-sector-size are mutually exclusive")
            }
            place = try await BlockingPool.shared.run { () throws(ColdframeError) in try WriteLog.end(of: log) }
        } else {
            place = try WriteLog.Place(sectorByteCount: branch.logSectorSize ?? 512)
        }
        let interval = branch.logSuperUpdateInterval ?? 4096
        guard interval > 0 else {
            throw ColdframeError(.invalidArgument, "Invalid log superblock update interval 0")
        }
        return BlklogwritesDriver(
            file, log: WriteLog(log, at: place, superblockInterval: interval),
            isReadOnly: context.isReadOnly || file.isReadOnly)
    }
}
