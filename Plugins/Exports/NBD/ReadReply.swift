import ColdframeKit

// READ. The reply is put together in one buffer, heads and data in turn, and sent by one system call.
extension RequestExecutor {
    /// Reads shorter than this are not searched for holes: looking costs more than sending zeros.
    private static let holeSearchByteCount = 64 << 10
    /// Extents that one reply tells apart; what follows is sent as data.
    private static let extentLimit = 64

    func read(_ request: WireRequest) throws(ColdframeError) -> Bool {
        let count = Int(request.length)
        guard count <= WireLimit.payloadByteCount else { return refuse(request, .invalid, oversizedText(request)) }
        guard count > 0 else { return acknowledge(request) }
        let buffer = session.buffers.take(count)
        defer { session.buffers.give(buffer) }
        let reply = try fill(buffer, request)
        return session.send(reply)
    }

    /// Holes and data are found in one passage of the gate, so that a drain sees the request as one.
    private func fill(
        _ buffer: WorkBuffer, _ request: WireRequest
    ) throws(ColdframeError) -> UnsafeRawBufferPointer {
        node.gate.enter()
        defer { node.gate.leave() }
        guard isInside(request) else { throw ColdframeError(.invalidArgument, outsideText(request)) }
        let count = Int(request.length)
        if session.isStructured, count >= Self.holeSearchByteCount, !request.flags.contains(.dontFragment) {
            let extents = try node.direct.extents(
                at: request.offset, byteCount: UInt64(count), limit: Self.extentLimit)
            if extents.contains(where: \.isHole) { return try fillSparse(buffer, request, extents) }
        }
        try node.direct.read(
            into: UnsafeMutableRawBufferPointer(start: buffer.payload, count: count), at: request.offset)
        let headCount = session.isStructured ? WireReply.dataHeadByteCount : WireReply.simpleByteCount
        let start = buffer.payload - headCount
        if session.isStructured {
            _ = WireReply.dataHead(
                start, cookie: request.cookie, offset: request.offset, byteCount: count, isLast: true)
        } else {
            _ = WireReply.simple(start, cookie: request.cookie, error: 0)
        }
        return UnsafeRawBufferPointer(start: start, count: headCount + count)
    }

    private func fillSparse(
        _ buffer: WorkBuffer, _ request: WireRequest, _ extents: [Extent]
    ) throws(ColdframeError) -> UnsafeRawBufferPointer {
        let start = buffer.payload - WireReply.dataHeadByteCount
        var position = start
        let end = request.offset + UInt64(request.length)
        var offset = request.offset
        var index = 0
        while offset < end {
            // One chunk for all neighbours that are alike. Behind the last known extent everything counts as data.
            let isHole = index < extents.count && extents[index].isHole
            var chunkEnd = offset
            while index < extents.count, extents[index].isHole == isHole {
                chunkEnd = min(max(chunkEnd, extents[index].end), end)
                index += 1
            }
            if index == extents.count, !isHole { chunkEnd = end }
            let byteCount = Int(chunkEnd - offset)
            let isLast = chunkEnd == end
            if isHole {
                position += WireReply.hole(
                    position, cookie: request.cookie, offset: offset, byteCount: byteCount, isLast: isLast)
            } else {
                position += WireReply.dataHead(
                    position, cookie: request.cookie, offset: offset, byteCount: byteCount, isLast: isLast)
                // In bounds: data never exceeds the request, and heads fit in front and behind (at most 65 of 32 bytes).
                try node.direct.read(
                    into: UnsafeMutableRawBufferPointer(start: position, count: byteCount), at: offset)
                position += byteCount
            }
            offset = chunkEnd
        }
        return UnsafeRawBufferPointer(start: start, count: position - start)
    }
}

extension Extent {
    /// Reads as zeros.
    fileprivate var isHole: Bool {
        if case .zero = kind { true } else { false }
    }
}
