import ColdframeKit
import LinuxSystem

/// A disk in memory above another one: it has clusters of 4 KiB, and holds those that were written.
final class LayeredDisk: Layered {
    static let clusterByteCount = 4096
    let driverName = "layered"
    let threadModel = ThreadModel.parallel
    let isReadOnly: Bool
    let displayFilename = "layered:"
    let byteCount: UInt64
    private let state: Locked<State>
    /// Between a read of the disk below and its end: time for others to come in between.
    private let readMicroseconds: UInt32

    struct State {
        var bytes: [UInt8]
        /// By cluster.
        var isAllocated: [Bool]
        var zeroings = 0
        var writes = 0
        /// The next calls that write fail from this one on.
        var failing = Int.max
    }

    /// - Parameter below: what shows through.
    init(below: [UInt8], isReadOnly: Bool = false, readMicroseconds: UInt32 = 0) {
        byteCount = UInt64(below.count)
        self.isReadOnly = isReadOnly
        self.readMicroseconds = readMicroseconds
        let count = (below.count + Self.clusterByteCount - 1) / Self.clusterByteCount
        state = Locked(State(bytes: below, isAllocated: [Bool](repeating: false, count: count)))
    }

    var now: State { state.withLock { $0 } }
    /// Numbers of the clusters that it holds itself.
    var allocated: [Int] { now.isAllocated.indices.filter { now.isAllocated[$0] } }
    func fail(call: Int) { state.withLock { $0.failing = call } }

    var clusterByteCount: UInt32? { UInt32(Self.clusterByteCount) }
    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        buffer.copyBytes(from: now.bytes[Int(offset)..<Int(offset) + buffer.count])
        if readMicroseconds > 0 { SystemThread.sleep(nanoseconds: UInt64(readMicroseconds) * 1000) }
    }

    private func change(_ range: Range<Int>, to bytes: [UInt8], isZeroing: Bool) throws(ColdframeError) {
        try state.withLock { state throws(ColdframeError) in
            let call = state.writes + state.zeroings
            if isZeroing { state.zeroings += 1 } else { state.writes += 1 }
            if call >= state.failing { throw ColdframeError(.io, "told to fail") }
            state.bytes.replaceSubrange(range, with: bytes)
            for cluster in range.lowerBound / Self.clusterByteCount...(range.upperBound - 1) / Self.clusterByteCount {
                state.isAllocated[cluster] = true
            }
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try change(Int(offset)..<Int(offset) + buffer.count, to: Array(buffer), isZeroing: false)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        let zeros = [UInt8](repeating: 0, count: Int(byteCount))
        try change(Int(offset)..<Int(offset + byteCount), to: zeros, isZeroing: true)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}
    func flush() throws(ColdframeError) {}

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .opaque)]
    }

    func allocation(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isAllocated: Bool, byteCount: UInt64) {
        let isAllocated = now.isAllocated
        let first = Int(offset) / Self.clusterByteCount
        var next = first
        while next < isAllocated.count, isAllocated[next] == isAllocated[first] { next += 1 }
        return (isAllocated[first], min(byteCount, UInt64(next * Self.clusterByteCount) - offset))
    }

    func close() throws(ColdframeError) {}
}
