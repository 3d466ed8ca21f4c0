import ColdframeKit

/// Reads the state that is stored beside a snapshot; every cluster against its checksum.
final class StoredVMState: VMStateReader {
    let byteCount: UInt64
    private let store: SidecarStore
    private let name: String
    /// Of the runs, with the position of each in the stream, in clusters.
    private let runs: [(start: Int, run: StoredRun)]

    init(_ snapshot: Contents.Snapshot, store: SidecarStore) throws(ColdframeError) {
        byteCount = snapshot.info.vmStateByteCount
        name = snapshot.info.name
        self.store = store
        guard byteCount > 0 else { throw ColdframeError(.notFound, "Snapshot '\(name)' has no state") }
        var start = 0
        var runs: [(start: Int, run: StoredRun)] = []
        for run in snapshot.state {
            runs.append((start, run))
            start += run.checksums.count
        }
        self.runs = runs
        guard byteCount <= UInt64(start) << store.clusterBits else {
            throw ColdframeError(.corrupt, "The state of snapshot '\(name)' is shorter than its snapshot says")
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(buffer.count) <= byteCount - offset else {
            throw ColdframeError(.invalidArgument, "Read outside the state of \(byteCount) bytes")
        }
        let size = store.file.clusterByteCount
        let cluster = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { cluster.deallocate() }
        var done = 0
        while done < buffer.count {
            let position = Int(offset) + done
            let count = min(size - position % size, buffer.count - done)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
            if count == size {
                try read(position / size, into: part)
            } else {
                try read(position / size, into: cluster)
                part.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: cluster[position % size..<position % size + count]))
            }
            done += count
        }
    }

    private func read(_ index: Int, into cluster: UnsafeMutableRawBufferPointer) throws(ColdframeError) {
        let (start, run) = runs[position(of: index)]
        try store.file.read(
            into: cluster, at: store.file.offset(ofCluster: run.location + UInt32(index - start)), "A state's cluster")
        guard Checksum.of(UnsafeRawBufferPointer(cluster)) == run.checksums[index - start] else {
            throw ColdframeError(
                .corrupt,
                "The state of snapshot '\(name)' is damaged: cluster \(index) does not match its checksum")
        }
    }

    /// The last run that begins at or before the cluster.
    private func position(of index: Int) -> Int {
        var low = 0
        var high = runs.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if runs[middle].start <= index { low = middle } else { high = middle }
        }
        return low
    }
}

extension RawSidecarDriver: VMStateBearing {
    public func beginVMState() throws(ColdframeError) -> any VMStateWriter {
        try checkMayChange()
        guard hasStateWriter.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged
        else {
            throw ColdframeError(.busy, "A state is being stored in this image already")
        }
        return VMStateArea(store: store) { [self] in hasStateWriter.store(false, ordering: .releasing) }
    }

    public func openVMState(ofSnapshot id: String) throws(ColdframeError) -> any VMStateReader {
        try StoredVMState(snapshot(id), store: store)
    }
}
