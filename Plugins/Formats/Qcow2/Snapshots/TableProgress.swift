import ColdframeKit

/// Tells how far a walk over L2 tables has come, in bytes of the disk that they map.
final class TableProgress {
    private let report: SnapshotProgress
    private let totalByteCount: UInt64
    private let tableByteCount: UInt64
    private var count: UInt64 = 0

    /// Seldom enough to cost nothing, often enough to be ended soon.
    private static let interval: UInt64 = 16

    init(tableCount: Int, _ geometry: Geometry, _ report: @escaping SnapshotProgress) {
        // L1 tables are bounded by 32 MiB and disks by 2^63 bytes: what would not fit is told too small.
        tableByteCount = min(geometry.l2TableSpan, UInt64(Int64.max) / UInt64(max(1, tableCount)))
        totalByteCount = UInt64(tableCount) * tableByteCount
        self.report = report
    }

    /// One table more is about to be looked at.
    func step() throws(ColdframeError) {
        if count % Self.interval == 0 { try report(min(count * tableByteCount, totalByteCount), totalByteCount) }
        count += 1
    }

    /// The walk has come to its end.
    func finish() throws(ColdframeError) { try report(totalByteCount, totalByteCount) }
}
