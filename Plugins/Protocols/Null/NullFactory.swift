import ColdframeKit
import QAPI
import QMPWire

/// Opens disks that keep nothing.
struct NullFactory: BlockDriverFactory {
    let driverName: String
    let isFormat = false
    /// The largest multiple of a sector that is a file offset.
    private static let longestLatencyNanoseconds: UInt64 = 60_000_000_000
    private static let largestByteCount = UInt64(Int64.max) / 512 * 512

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsNull = try own(options.branch)
        guard let size = UInt64(exactly: branch.size ?? 1 << 30) else {
            throw ColdframeError(.invalidArgument, "Parameter 'size' expects a non-negative number below 2^64")
        }
        guard size <= Self.largestByteCount else {
            throw ColdframeError(.invalidArgument, "'size' must be at most \(Self.largestByteCount) bytes")
        }
        let latency = branch.latencyNs ?? 0
        guard latency <= UInt64(Int64.max) else { throw ColdframeError(.invalidArgument, "latency-ns is invalid") }
        // A request holds its thread so long, and whoever brings the node to rest waits for it.
        guard latency <= Self.longestLatencyNanoseconds else {
            throw ColdframeError(.invalidArgument, "'latency-ns' must be at most \(Self.longestLatencyNanoseconds)")
        }
        return NullDriver(
            driverName: driverName, byteCount: (size + 511) / 512 * 512, latencyNanoseconds: latency,
            isKnownZero: branch.readZeroes ?? false, isReadOnly: context.isReadOnly,
            displayFilename: displayFilename(branch))
    }

    /// QEMU's description: the plain name if nothing but the latency is given, since that changes no content.
    private func displayFilename(_ branch: BlockdevOptionsNull) -> String {
        guard branch.size != nil || branch.readZeroes != nil else { return "\(driverName)://" }
        var members: JSONObject = [:]
        if let readZeroes = branch.readZeroes { members["read-zeroes"] = .bool(readZeroes) }
        members["driver"] = .string(driverName)
        if let size = branch.size { members["size"] = .integer(size) }
        return "json:\(members)"
    }
}
