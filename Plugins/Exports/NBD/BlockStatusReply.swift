import ColdframeKit

// BLOCK_STATUS for the context `base:allocation`.
extension RequestExecutor {
    /// Descriptors in one reply, at most. The client asks again from where they end.
    private static let descriptorLimit = 1024
    /// Extents that are looked at in one step, and steps: neighbours that look alike to the client are many extents where
    /// an image is scattered, and the work for one request is bounded.
    private static let extentLimit = 1024
    private static let stepLimit = 16

    func blockStatus(_ request: WireRequest) throws(ColdframeError) -> Bool {
        guard session.reportsAllocation else {
            return refuse(request, .invalid, "The client has not asked for base:allocation in its handshake")
        }
        guard request.length > 0 else { return refuse(request, .invalid, "A block status needs a length") }
        guard isInside(request) else { return refuse(request, .invalid, outsideText(request)) }
        let limit = request.flags.contains(.onlyOne) ? 1 : Self.descriptorLimit
        let buffer = session.buffers.take(WireReply.chunkByteCount + 4 + 8 * Self.descriptorLimit)
        defer { session.buffers.give(buffer) }
        var descriptors = AllocationDescriptors(target: buffer.payload + WireReply.chunkByteCount + 4, limit: limit)
        try describe(request, &descriptors)
        let byteCount = descriptors.finish()
        _ = WireReply.chunk(
            buffer.payload, .blockStatus, cookie: request.cookie, payloadByteCount: 4 + byteCount, isLast: true)
        buffer.payload.storeBig(Handshake.allocationContextID, at: WireReply.chunkByteCount)
        return session.send(
            UnsafeRawBufferPointer(start: buffer.payload, count: WireReply.chunkByteCount + 4 + byteCount))
    }

    private func describe(
        _ request: WireRequest, _ descriptors: inout AllocationDescriptors
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
                guard descriptors.add(byteCount: UInt32(byteCount), extent.kind.allocation) else { return }
                offset += byteCount
            }
            // A driver that describes nothing would be asked for ever.
            if extents.isEmpty { break }
        }
        if descriptors.isEmpty { throw ColdframeError(.io, "Node '\(node.name)' does not describe its extents") }
    }
}

/// Descriptors in wire order, like neighbours merged.
private struct AllocationDescriptors {
    let target: UnsafeMutableRawPointer
    let limit: Int
    private var count = 0
    private var length: UInt32 = 0
    private var flags: WireAllocation = []

    init(target: UnsafeMutableRawPointer, limit: Int) {
        self.target = target
        self.limit = limit
    }

    var isEmpty: Bool { length == 0 }

    /// False if there is no room for another descriptor. The sum of all lengths fits 32 bits, as the request's does.
    mutating func add(byteCount: UInt32, _ newFlags: WireAllocation) -> Bool {
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
        target.storeBig(flags.rawValue, at: count * 8 + 4)
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
