import BlockCopying
import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire
import Synchronization

/// An open `quorum`: writes go to all children, and reads to all or to the first. Any number of threads.
///
/// Children are asked at once (`QuorumRound`) where they are slow enough for that to be quicker (`QuorumPace`).
///
/// A write reserves its range, and so does a read that compares: all children are looked at between the same two writes, and get two
/// writes of one place in the same order.
final class QuorumDriver: BlockDriver {
    let driverName = "quorum"
    let threadModel = ThreadModel.parallel
    let settings: QuorumSettings
    let reports: QuorumReports
    let list: Locked<QuorumChildList>
    private let size: Atomic<UInt64>
    private let wasOpenedReadOnly: Bool
    private let reservations = RangeReservations()
    private let paces: (read: QuorumPace, write: QuorumPace, flush: QuorumPace)

    /// - Parameters:
    ///   - children: one at least, all of one size.
    ///   - worthNanoseconds: how long children must take in turn to be asked at once; 0 to do so always.
    init(
        children: [QuorumChild], settings: QuorumSettings, isReadOnly: Bool, reports: QuorumReports,
        worthNanoseconds: UInt64 = QuorumPace.worthNanoseconds
    ) {
        func pace() -> QuorumPace { QuorumPace(worthNanoseconds: worthNanoseconds) }
        paces = (pace(), pace(), pace())
        size = Atomic(children[0].node.byteCount)
        self.settings = settings
        self.reports = reports
        wasOpenedReadOnly = isReadOnly
        list = Locked(QuorumChildList(children))
    }

    /// Changes only while nobody is inside.
    var children: [QuorumChild] { list.withLock { $0.children } }

    var byteCount: UInt64 { size.load(ordering: .acquiring) }

    var isReadOnly: Bool { wasOpenedReadOnly || children.contains { $0.node.isReadOnly } }

    func information() throws(ColdframeError) -> BlockInformation {
        var sum: UInt64? = 0
        for child in children {
            let own = try child.node.driver.information().allocatedByteCount
            sum = own.flatMap { own in sum.map { $0 + own } }
        }
        return BlockInformation(allocatedByteCount: sum)
    }

    // MARK: Requests

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        if settings.readsFirst {
            try readFirst(into: buffer, at: offset)
        } else {
            try readByVote(into: buffer, at: offset)
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try writeAll(.write(buffer, at: offset, flags))
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if flags.contains(.noFallback) {
            // One child could refuse when another has done it.
            throw ColdframeError(
                .unsupported, SystemError.text(errno: Errno.notSupported), errno: Errno.notSupported)
        }
        try writeAll(.writeZeroes(offset..<offset + byteCount, flags))
    }

    private func writeAll(_ request: QuorumRequest) throws(ColdframeError) {
        let range = request.range
        try holding(range) { () throws(ColdframeError) in
            let children = children
            let errors = errors(of: request, children, Array(children.indices))
            reportErrors(of: children, errors, .write, range)
            guard errors.count(where: { $0 == nil }) >= settings.threshold else {
                reports.failure(range)
                throw QuorumBallot.winner(of: errors) ?? ColdframeError(.io, "Too few children took a write")
            }
            for (child, error) in zip(children, errors) {
                if error == nil { child.catchUp(range) } else { child.miss(range) }
            }
        }
    }

    /// What is discarded may read as anything, and so in each child as something else: it stays.
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}

    func flush() throws(ColdframeError) {
        let children = children
        let errors = errors(of: .flush, children, Array(children.indices))
        reportErrors(of: children, errors, .flush, 0..<0)
        guard errors.count(where: { $0 == nil }) < settings.threshold else { return }
        throw QuorumBallot.winner(of: errors) ?? ColdframeError(.io, "Too few children were flushed")
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        let children = children
        return try agreedExtents(
            of: children.map(\.node), at: offset, byteCount: byteCount, limit: limit
        ) { (node, error) throws(ColdframeError) in
            guard let child = children.first(where: { $0.node === node }) else { throw error }
            reports.bad(child, .read, offset..<offset + byteCount, error)
        }
    }

    /// The children belong to the graph, which closes them.
    func close() throws(ColdframeError) {}

    // MARK: For other parts

    /// How each of the chosen children failed, when all are done.
    func errors(of request: QuorumRequest, _ children: [QuorumChild], _ chosen: [Int]) -> [ColdframeError?] {
        let pace =
            switch request {
            case .read: paces.read
            case .write, .writeZeroes: paces.write
            case .flush: paces.flush
            }
        return QuorumRound.errors(of: request, children, chosen, pace)
    }

    func holding<Value>(
        _ range: Range<UInt64>, _ body: () throws(ColdframeError) -> Value
    ) throws(ColdframeError) -> Value {
        reservations.reserve(range)
        defer { reservations.release(range) }
        return try body()
    }

    func reportErrors(
        of children: [QuorumChild], _ errors: [ColdframeError?], _ type: QuorumOpType, _ range: Range<UInt64>
    ) {
        for (child, error) in zip(children, errors) {
            if let error { reports.bad(child, type, range, error) }
        }
    }

    /// All children have so many bytes by now.
    func setSize(_ byteCount: UInt64) { size.store(byteCount, ordering: .releasing) }
}

/// The children of a quorum, and the number of the next one's name.
struct QuorumChildList {
    private(set) var children: [QuorumChild]
    private(set) var nextNumber: Int

    init(_ children: [QuorumChild]) {
        self.children = children
        nextNumber = (children.compactMap { Self.number($0.name) }.max() ?? -1) + 1
    }

    mutating func append(_ child: QuorumChild) {
        children.append(child)
        nextNumber = max(nextNumber, (Self.number(child.name) ?? 0) + 1)
    }

    mutating func remove(_ name: String) {
        children.removeAll { $0.name == name }
        // QEMU's rule: the last name is used again.
        if Self.number(name) == nextNumber - 1 { nextNumber -= 1 }
    }

    private static func number(_ name: String) -> Int? { name.split(separator: ".").last.flatMap { Int($0) } }
}
