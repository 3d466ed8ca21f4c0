import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// What a quorum tells of its children. Any thread.
struct QuorumReports: Sendable {
    private static let sectorByteCount: UInt64 = 512
    let nodeName: String
    let post: @Sendable (_ name: String, _ data: JSONObject) -> Void
    let log: LimitedLog

    /// A child failed, or with no error holds something else than the result.
    func bad(_ child: QuorumChild, _ type: QuorumOpType, _ range: Range<UInt64>, _ error: ColdframeError? = nil) {
        var data: JSONObject = ["type": .string(type.rawValue)]
        if let error { data["error"] = .string(SystemError.text(errno: error.errno)) }
        data["node-name"] = .string(child.node.name)
        post("QUORUM_REPORT_BAD", Self.adding(range, to: data))
    }

    /// The request of the quorum itself failed.
    func failure(_ range: Range<UInt64>) {
        post("QUORUM_FAILURE", Self.adding(range, to: ["reference": .string(nodeName)]))
    }

    /// For `blkverify`, where QEMU ends.
    func difference(_ range: Range<UInt64>, at offset: UInt64) {
        log.error(
            "quorum '\(nodeName)': read of \(range.count) bytes at \(range.lowerBound): the contents differ from byte "
                + "\(offset) (sector \(offset / Self.sectorByteCount)) on")
    }

    private static func adding(_ range: Range<UInt64>, to data: JSONObject) -> JSONObject {
        var data = data
        let first = range.lowerBound / sectorByteCount
        let end = (range.upperBound + sectorByteCount - 1) / sectorByteCount
        data["sector-num"] = JSONValue(first)
        data["sectors-count"] = JSONValue(end - first)
        return data
    }
}
