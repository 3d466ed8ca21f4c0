import ColdframeKit

// BLOCK_STATUS: one chunk for each context that the client has chosen.
extension RequestExecutor {
    /// Descriptors in one chunk, at most. The client asks again from where they end.
    private static let descriptorLimit = 1024
    /// Extents that are looked at in one step, and steps: neighbours that look alike to the client are many extents where
    /// an image is scattered, and the work for one request is bounded.
    private static let extentLimit = 1024
    private static let stepLimit = 16
    /// Head of a chunk and the id of its context.
    private static let headByteCount = WireReply.chunkByteCount + 4

    func blockStatus(_ request: WireRequest) throws(ColdframeError) -> Bool {
        let contexts = session.contexts
        guard !contexts.isEmpty else {
            return refuse(request, .invalid, "The client has not asked for a meta context in its handshake")
        }
        guard request.length > 0 else { return refuse(request, .invalid, "A block status needs a length") }
        guard isInside(request) else { return refuse(request, .invalid, outsideText(request)) }
        let chunkCount = (contexts.reportsAllocation ? 1 : 0) + contexts.bitmaps.count
        let limit = request.flags.contains(.onlyOne) ? 1 : Self.descriptorLimit
        let buffer = session.buffers.take(chunkCount * (Self.headByteCount + 8 * limit))
        defer { session.buffers.give(buffer) }
        var position = buffer.payload
        var written = 0
        if contexts.reportsAllocation {
            var descriptors = StatusDescriptors(target: position + Self.headByteCount, limit: limit)
            try describe(request, &descriptors)
            written += 1
            position = finish(
                &descriptors, at: position, MetaContexts.allocationID, request, isLast: written == chunkCount)
        }
        for index in contexts.bitmaps {
            var descriptors = StatusDescriptors(target: position + Self.headByteCount, limit: limit)
            describe(request, session.export.bitmaps[index].bitmap, &descriptors)
            written += 1
            position = finish(
                &descriptors, at: position, MetaContexts.id(ofBitmap: index), request, isLast: written == chunkCount)
        }
        return session.send(UnsafeRawBufferPointer(start: buffer.payload, count: position - buffer.payload))
    }

    /// Writes the head in front of the descriptors; returns where the next chunk begins.
    private func finish(
        _ descriptors: inout StatusDescriptors, at start: UnsafeMutableRawPointer, _ contextID: UInt32,
        _ request: WireRequest, isLast: Bool
    ) -> UnsafeMutableRawPointer {
        let byteCount = descriptors.finish()
        _ = WireReply.chunk(
            start, .blockStatus, cookie: request.cookie, payloadByteCount: 4 + byteCount, isLast: isLast)
        start.storeBig(contextID, at: WireReply.chunkByteCount)
        return start + Self.headByteCount + byteCount
    }

    private func describe(
        _ request: WireRequest, _ descriptors: inout StatusDescriptors
    ) throws(ColdframeError) {
        node.gate.enter()
        defer { node.gate.leave() }
        guard isInside(request) else { throw ColdframeError(.invalidArgument, outsideText(request)) }
        let end = request.offset + UInt64(request.length)
        var offset = request.offset
        for _ in 0..<Self.stepLimit where offset < end {
            let extents = try node.direct.extents(at: offset, byteCount: end - offset, limit: Self.extentLimit)
            for extent in extents {
                guard extent.end > offset else { continue }
                let byteCount = min(extent.end, end) - offset
                guard descriptors.add(byteCount: UInt32(byteCount), extent.kind.allocation.rawValue) else { return }
                offset += byteCount
            }
            // A driver that describes nothing would be asked for ever.
            if extents.isEmpty { break }
        }
        if descriptors.isEmpty { throw ColdframeError(.io, "Node '\(node.name)' does not describe its extents") }
    }

    private func describe(_ request: WireRequest, _ bitmap: DirtyBitmap, _ descriptors: inout StatusDescriptors) {
        let end = request.offset + UInt64(request.length)
        bitmap.withBits { bits in
            var offset = request.offset
            while offset < end {
                // What lies behind the bitmap's end, where a disk has grown, counts as clean.
                let run = bits.nextDirty(from: offset, to: end) ?? end..<end
                if run.lowerBound > offset {
                    guard descriptors.add(byteCount: UInt32(run.lowerBound - offset), 0) else { return }
                }
                if !run.isEmpty {
                    let byteCount = UInt32(run.upperBound - run.lowerBound)
                    guard descriptors.add(byteCount: byteCount, WireDirty.dirty) else { return }
                }
                offset = run.upperBound
            }
        }
    }
}

/// Descriptors in wire order, like neighbours merged.
private struct StatusDescriptors {
    let target: UnsafeMutableRawPointer
    let limit: Int
    private var count = 0
    private var length: UInt32 = 0
    private var flags: UInt32 = 0

    init(target: UnsafeMutableRawPointer, limit: Int) {
        self.target = target
        self.limit = limit
    }

    var isEmpty: Bool { length == 0 }

    /// False if there is no room for another descriptor. The sum of all lengths fits 32 bits, as the request's does.
    mutating func add(byteCount: UInt32, _ newFlags: UInt32) -> Bool {
        if length > 0, newFlags != flags {
            guard count + 1 < limit else { return false }
            store()
        }
        flags = newFlags
        length += byteCount
        return true
    }

    private mutating func store() {
        target.storeBig(length, at: count * 8)
        target.storeBig(flags, at: count * 8 + 4)
        count += 1
        length = 0
    }

    /// Bytes written in all.
    mutating func finish() -> Int {
        if length > 0 { store() }
        return count * 8
    }
}

extension Extent.Kind {
    fileprivate var allocation: WireAllocation {
        switch self {
        case .zero(let allocated): allocated ? .zero : [.hole, .zero]
        case .data, .opaque: []
        }
    }
}
