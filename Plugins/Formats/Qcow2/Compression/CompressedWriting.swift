import ColdframeKit

extension DiskWriter {
    /// Stores one cluster compressed, or as it is if it does not become smaller. `offset` is its beginning; `buffer` may
    /// end before it where the disk does.
    func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: GuestOffset) throws(ColdframeError) {
        try prepare()
        let size = Int(geometry.clusterByteCount)
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * size, alignment: 4096)
        defer { scratch.deallocate() }
        var plain = buffer
        if buffer.count < size {
            let padded = UnsafeMutableRawBufferPointer(rebasing: scratch[size...])
            padded.copyMemory(from: buffer)
            UnsafeMutableRawBufferPointer(rebasing: padded[buffer.count...]).initializeMemory(
                as: UInt8.self, repeating: 0)
            plain = UnsafeRawBufferPointer(padded)
        }
        let room = UnsafeMutableRawBufferPointer(rebasing: scratch[..<(size - 1)])
        guard let count = compression.compress(plain, into: room) else { return try write(buffer, at: offset) }
        let run = ClusterRun(first: offset.rawValue >> UInt64(geometry.clusterBits), count: 1)
        try listInFlight(run)
        let range: CompressedRange
        do {
            // What was read of clusters that have become free is no longer true.
            range = try compressedSpace.take(byteCount: UInt64(count)) { reader.forgetCompressed() }
        } catch {
            map.endInFlight(run)
            throw error
        }
        do {
            try file.write(UnsafeRawBufferPointer(rebasing: room[..<count]), at: HostOffset(range.offset))
        } catch {
            map.endInFlight(run)
            compressedSpace.giveBack(range)
            throw error
        }
        let old = try map.update(run) { _, _ in L2Entry(compressed: range, geometry) }
        try store.releaseAfterFlush(references(old, cause: .other))
    }

    /// Lists clusters under one slice as being allocated by this thread, when its L2 table may be written.
    func listInFlight(_ wanted: ClusterRun) throws(ColdframeError) {
        while true {
            let step = try map.withSlice(GuestOffset(wanted.first << UInt64(geometry.clusterBits))) {
                (state, slice) throws(ColdframeError) -> TableStep? in
                var run = wanted
                guard try self.writableSlice(&state, slice, &run) != nil else { return self.tableStep(&state, run) }
                state.inFlight.append(run)
                return nil
            }
            guard let step else { return }
            try resolve(step)
        }
    }
}

extension Qcow2Driver: CompressedWriting {
    public var compressionUnitByteCount: UInt64 { geometry.clusterByteCount }

    public func writeCompressed(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard !geometry.hasExternalData else {
            throw ColdframeError(.unsupported, "An image with an external data file has no compressed clusters")
        }
        guard geometry.isClusterAligned(offset),
            geometry.isClusterAligned(UInt64(buffer.count)) || offset + UInt64(buffer.count) == byteCount
        else {
            throw ColdframeError(
                .invalidArgument, "Compressed writes cover whole clusters of \(geometry.clusterByteCount) bytes")
        }
        try changing { () throws(ColdframeError) in
            var done = 0
            while done < buffer.count {
                let count = min(Int(geometry.clusterByteCount), buffer.count - done)
                try writer.writeCompressed(
                    UnsafeRawBufferPointer(rebasing: buffer[done..<done + count]),
                    at: GuestOffset(offset + UInt64(done)))
                done += count
            }
        }
    }
}
