import ColdframeKit
import LinuxSystem

/// Stores the state of a machine: a stream in clusters of its own, each with its checksum.
///
/// Until it is attached nothing refers to its clusters, and a crash frees them. `attach` flushes the data, then commits
/// where it lies and that it belongs to the snapshot, in one batch of which only the last record counts.
final class VMStateArea: VMStateWriter {
    private let store: SidecarStore
    private let onEnd: @Sendable () -> Void
    private let state: Locked<State>

    fileprivate struct State: Sendable {
        var runs: [StoredRun] = []
        /// Clusters taken and not yet written.
        var spare = ClusterRun(first: 0, count: 0)
        /// Less than a cluster.
        var staged: [UInt8] = []
        var byteCount: UInt64 = 0
        var hasEnded = false
    }

    private static let reservedByteCount = 16 << 20

    init(store: SidecarStore, onEnd: @escaping @Sendable () -> Void) {
        self.store = store
        self.onEnd = onEnd
        state = Locked(State())
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(ColdframeError) {
        // The caller's buffer outlives the call, and the closure runs within it.
        nonisolated(unsafe) let bytes = bytes
        try state.withLock { state throws(ColdframeError) in
            guard !state.hasEnded else { throw ColdframeError(.invalidArgument, "The state has ended") }
            let size = self.store.file.clusterByteCount
            var rest = bytes
            if !state.staged.isEmpty {
                let count = min(rest.count, size - state.staged.count)
                state.staged.append(contentsOf: rest[..<count])
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                if state.staged.count == size { try self.writeStaged(&state) }
            }
            let whole = rest.count / size * size
            try self.write(UnsafeRawBufferPointer(rebasing: rest[..<whole]), &state)
            state.staged.append(contentsOf: rest[whole...])
            state.byteCount += UInt64(bytes.count)
        }
    }

    private func writeStaged(_ state: inout State) throws(ColdframeError) {
        guard !state.staged.isEmpty else { return }
        let size = store.file.clusterByteCount
        state.staged.append(contentsOf: repeatElement(0, count: size - state.staged.count))
        let staged = state.staged
        state.staged = []
        try staged.withBytes { bytes throws(ColdframeError) in try write(bytes, &state) }
    }

    /// Writes whole clusters.
    private func write(_ bytes: UnsafeRawBufferPointer, _ state: inout State) throws(ColdframeError) {
        let size = store.file.clusterByteCount
        var rest = bytes
        while !rest.isEmpty {
            if state.spare.count == 0 { state.spare = try store.allocate(limit: max(1, Self.reservedByteCount / size)) }
            let count = min(Int(state.spare.count), rest.count / size)
            let part = UnsafeRawBufferPointer(rebasing: rest[..<(count * size)])
            try store.file.write(part, at: store.file.offset(ofCluster: state.spare.first))
            let checksums = (0..<count).map {
                Checksum.of(UnsafeRawBufferPointer(rebasing: part[$0 * size..<($0 + 1) * size]))
            }
            state.add(state.spare.first, checksums)
            state.spare.first += UInt32(count)
            state.spare.count -= UInt32(count)
            rest = UnsafeRawBufferPointer(rebasing: rest[(count * size)...])
        }
    }

    func attach(
        toSnapshot id: String, annotation: [UInt8], guestClockNanoseconds: UInt64
    ) throws(ColdframeError) -> SnapshotInfo {
        guard annotation.count <= Limits.annotationByteCount else {
            throw ColdframeError(
                .invalidArgument, "A snapshot's annotation has at most \(Limits.annotationByteCount) bytes")
        }
        let generation = try state.withLock { state throws(ColdframeError) in
            guard !state.hasEnded else { throw ColdframeError(.invalidArgument, "The state has ended") }
            let snapshot = try self.store.contents.withLock { contents throws(ColdframeError) in
                try contents.snapshot(id: id)
            }
            guard snapshot.info.vmStateByteCount == 0 else {
                throw ColdframeError(.alreadyExists, "Snapshot '\(snapshot.info.name)' has a state already")
            }
            try self.writeStaged(&state)
            try self.store.file.flush()
            var records = Contents.portions(state.runs).map {
                Record.stateRuns(generation: snapshot.generation, $0)
            }
            records.append(
                .stateAttached(
                    generation: snapshot.generation, byteCount: state.byteCount,
                    guestClockNanoseconds: guestClockNanoseconds, annotation: annotation))
            try self.store.commit(records)
            self.giveBack(&state, [])
            return snapshot.generation
        }
        onEnd()
        return try store.contents.withLock { contents throws(ColdframeError) in
            contents.snapshots[try contents.position(generation)].info
        }
    }

    func abandon() throws(ColdframeError) {
        let wasOpen = state.withLock { state in
            guard !state.hasEnded else { return false }
            // After an attach whose record may or may not be in the log, the clusters stay as they are.
            let isCertain = !self.store.isUncertain.load(ordering: .acquiring)
            self.giveBack(&state, isCertain ? state.runs : [])
            return true
        }
        if wasOpen { onEnd() }
    }

    private func giveBack(_ state: inout State, _ runs: [StoredRun]) {
        store.free(runs.map { ClusterRun(first: $0.location, count: UInt32($0.checksums.count)) })
        if state.spare.count > 0 { store.free([state.spare]) }
        state = State(hasEnded: true)
    }
}

extension VMStateArea.State {
    /// Adds clusters to the stream, joined to the last run if they follow it.
    fileprivate mutating func add(_ location: UInt32, _ checksums: [UInt32]) {
        if let last = runs.last, UInt64(last.location) + UInt64(last.checksums.count) == UInt64(location) {
            runs[runs.count - 1].checksums += checksums
        } else {
            runs.append(StoredRun(location: location, checksums: checksums))
        }
    }
}
