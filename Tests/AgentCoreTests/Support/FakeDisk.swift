import ColdframeKit
import LinuxSystem

/// An image in memory with snapshots and room for states: its content is one number. Any call can be told to fail.
class FakeDisk: VMStateBearing, FileBacked, @unchecked Sendable {
    // Unchecked: a class that others inherit from; all that changes is in `state`.
    let driverName: String
    let isReadOnly: Bool
    let threadModel = ThreadModel.parallel
    let byteCount: UInt64 = 1 << 20
    let displayFilename: String
    let fileIdentity: FileIdentity
    private let state = Locked(State())

    struct State {
        var content: UInt64 = 0
        var snapshots: [SnapshotInfo] = []
        var contents: [String: UInt64] = [:]
        var vmStates: [String: [UInt8]] = [:]
        var highestID: UInt64 = 0
        var hasWriter = false
        var isClosed = false
        var calls: [String: Int] = [:]
        var failing: [String: Int] = [:]
        var hooks: [String: @Sendable () -> Void] = [:]
    }

    init(_ name: String, driver: String = "fake", isReadOnly: Bool = false) {
        driverName = driver
        displayFilename = "/images/" + name
        self.isReadOnly = isReadOnly
        fileIdentity = FileIdentity(
            device: 1, inode: UInt64(name.utf8.reduce(0) { $0 &+ Int($1) }), path: "/images/" + name)
    }

    // MARK: What a test does with it

    var now: State { state.withLock { $0 } }
    var content: UInt64 {
        get { state.withLock { $0.content } }
        set { state.withLock { $0.content = newValue } }
    }
    var tags: [String] { snapshots.map(\.name) }
    func callCount(_ method: String) -> Int { state.withLock { $0.calls[method] ?? 0 } }

    /// Call number `n` of `method` from now on (1 is the next) does nothing but throw.
    func fail(_ method: String, call n: Int = 1) {
        state.withLock { $0.failing[method] = ($0.calls[method] ?? 0) + n }
    }

    /// Runs once, on the thread of the next call of `method`, before it does anything.
    func before(_ method: String, _ hook: @escaping @Sendable () -> Void) {
        state.withLock { $0.hooks[method] = hook }
    }

    private func pass(_ method: String) throws(ColdframeError) {
        let (hook, fails, isClosed) = state.withLock { state in
            state.calls[method, default: 0] += 1
            return (
                state.hooks.removeValue(forKey: method), state.failing[method] == state.calls[method], state.isClosed
            )
        }
        hook?()
        if isClosed { throw ColdframeError(.io, "\(method) of a closed image") }
        if fails { throw ColdframeError(.io, "\(method) was told to fail") }
    }

    // MARK: Snapshots

    var snapshots: [SnapshotInfo] { state.withLock { $0.snapshots } }

    func createSnapshot(_ request: SnapshotRequest) throws(ColdframeError) -> SnapshotInfo {
        try pass("create")
        return state.withLock { state in
            state.highestID = max(state.snapshots.compactMap { UInt64($0.id) }.max() ?? 0, request.idFloor) + 1
            let info = SnapshotInfo(
                id: String(state.highestID), name: request.name, dateSeconds: request.dateSeconds,
                dateNanoseconds: request.dateNanoseconds, diskByteCount: 1 << 20, annotation: request.annotation)
            state.snapshots.append(info)
            state.contents[info.id] = state.content
            return info
        }
    }

    func deleteSnapshot(id: String, progress: @escaping SnapshotProgress) throws(ColdframeError) {
        try pass("delete")
        try find(id)
        try progress(byteCount / 2, byteCount)
        state.withLock { state in
            state.snapshots.removeAll { $0.id == id }
            state.contents[id] = nil
            state.vmStates[id] = nil
        }
    }

    func revert(toSnapshot id: String) throws(ColdframeError) {
        try pass("revert")
        try find(id)
        state.withLock { $0.content = $0.contents[id] ?? 0 }
    }

    private func find(_ id: String) throws(ColdframeError) {
        guard state.withLock({ $0.contents[id] != nil }) else { throw ColdframeError(.notFound, "no snapshot \(id)") }
    }

    func openSnapshot(id: String) throws(ColdframeError) -> any BlockDriver {
        try pass("open")
        try find(id)
        return FakeDisk("view", isReadOnly: true)
    }

    // MARK: States

    func beginVMState() throws(ColdframeError) -> any VMStateWriter {
        try pass("begin")
        let isFree = state.withLock { state in
            defer { state.hasWriter = true }
            return !state.hasWriter
        }
        guard isFree else { throw ColdframeError(.busy, "a state is being written") }
        return Writer(self)
    }

    func openVMState(ofSnapshot id: String) throws(ColdframeError) -> any VMStateReader {
        Reader(bytes: state.withLock { $0.vmStates[id] ?? [] })
    }

    /// As a damaged disk would: the stored bytes change, nobody knows.
    func damageState(of id: String) { state.withLock { $0.vmStates[id]?[0] ^= 1 } }

    private final class Writer: VMStateWriter {
        private let disk: FakeDisk
        private let bytes = Locked<[UInt8]>([])
        init(_ disk: FakeDisk) { self.disk = disk }

        func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
            try disk.pass("append")
            let copy = Array(bytes)
            self.bytes.withLock { $0 += copy }
        }

        func attach(
            toSnapshot id: String, annotation: [UInt8], guestClockNanoseconds: UInt64
        ) throws(ColdframeError) -> SnapshotInfo {
            try disk.pass("attach")
            let bytes = bytes.withLock { $0 }
            let info: SnapshotInfo? = disk.state.withLock { state in
                guard let index = state.snapshots.firstIndex(where: { $0.id == id }) else { return nil }
                state.snapshots[index].vmStateByteCount = UInt64(bytes.count)
                state.snapshots[index].annotation = annotation
                state.vmStates[id] = bytes
                state.hasWriter = false
                return state.snapshots[index]
            }
            guard let info else { throw ColdframeError(.notFound, "no snapshot \(id)") }
            return info
        }

        func abandon() throws(ColdframeError) {
            try disk.pass("abandon")
            disk.state.withLock { $0.hasWriter = false }
        }
    }

    private final class Reader: VMStateReader {
        private let bytes: [UInt8]
        init(bytes: [UInt8]) { self.bytes = bytes }
        var byteCount: UInt64 { UInt64(bytes.count) }
        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
            buffer.copyBytes(from: bytes[Int(offset)..<Int(offset) + buffer.count])
        }
    }

    // MARK: A disk of zeros

    func information() throws(ColdframeError) -> BlockInformation { BlockInformation(allocatedByteCount: 4096) }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {}
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {}
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}
    func flush() throws(ColdframeError) {}
    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .zero(allocated: false))]
    }
    func close() throws(ColdframeError) {
        try pass("close")
        state.withLock { $0.isClosed = true }
    }
}
