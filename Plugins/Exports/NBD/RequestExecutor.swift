import ColdframeKit

/// Carries out requests for one worker: checks, calls the node, sends the reply. Everything from the client is checked
/// here or by the node, inside its gate.
struct RequestExecutor {
    let session: Session
    let node: BlockNode
    /// Room for replies without data.
    private let scratch: UnsafeMutableRawPointer
    private static let scratchByteCount = 512
    /// Piece in which CACHE reads, in bytes.
    private static let cacheStep = 1 << 20

    init(session: Session) {
        self.session = session
        node = session.export.node
        scratch = .allocate(byteCount: Self.scratchByteCount, alignment: 16)
    }

    /// Gives the memory back; the executor is not used afterwards.
    func close() { scratch.deallocate() }

    /// False if the reply could not be sent: the connection is dead.
    func carryOut(_ received: ReceivedRequest) -> Bool {
        let request = received.header
        guard let command = request.command else {
            return refuse(request, .invalid, "Command \(request.type) is unknown")
        }
        let allowed = WireRequest.allowedFlags(command, isStructured: session.isStructured)
        guard allowed.isSuperset(of: request.flags) else {
            return refuse(request, .invalid, "Flags \(request.flags.rawValue) do not go with command \(request.type)")
        }
        do throws(ColdframeError) {
            switch command {
            case .read: return try read(request)
            case .write: return try write(request, received)
            case .flush: try node.flush()
            case .trim: if let reply = try trim(request) { return reply }
            case .writeZeroes: if let reply = try writeZeroes(request) { return reply }
            case .cache: if let reply = try cache(request) { return reply }
            case .blockStatus: return try blockStatus(request)
            case .disconnect: return false
            }
            return acknowledge(request)
        } catch {
            return refuse(request, WireError(errno: error.errno), error.message)
        }
    }

    // MARK: Replies without data

    func acknowledge(_ request: WireRequest) -> Bool {
        let count =
            session.isStructured
            ? WireReply.chunk(scratch, .none, cookie: request.cookie, payloadByteCount: 0, isLast: true)
            : WireReply.simple(scratch, cookie: request.cookie, error: 0)
        return session.send(UnsafeRawBufferPointer(start: scratch, count: count))
    }

    func refuse(_ request: WireRequest, _ error: WireError, _ text: @autoclosure () -> String) -> Bool {
        let count =
            session.isStructured
            ? WireReply.error(scratch, capacity: Self.scratchByteCount, cookie: request.cookie, error, text())
            : WireReply.simple(scratch, cookie: request.cookie, error: error.rawValue)
        return session.send(UnsafeRawBufferPointer(start: scratch, count: count))
    }

    // MARK: Requests that change the disk

    /// What forbids a change, as a reply already sent; nil if it may go on.
    private func refuseChange(_ request: WireRequest) -> Bool? {
        guard session.export.isWritable else { return refuse(request, .notPermitted, "The export is read-only") }
        guard isInside(request) else { return refuse(request, .noSpace, outsideText(request)) }
        return nil
    }

    func isInside(_ request: WireRequest) -> Bool {
        let size = node.byteCount
        return request.offset <= size && UInt64(request.length) <= size - request.offset
    }

    func outsideText(_ request: WireRequest) -> String {
        "\(request.length) bytes at \(request.offset) lie outside the disk of \(node.byteCount) bytes"
    }

    func oversizedText(_ request: WireRequest) -> String {
        "\(request.length) bytes are more than the \(WireLimit.payloadByteCount) of one request"
    }

    private func write(_ request: WireRequest, _ received: ReceivedRequest) throws(ColdframeError) -> Bool {
        guard !received.isOversized, let payload = received.payload else {
            return refuse(request, .invalid, oversizedText(request))
        }
        if let reply = refuseChange(request) { return reply }
        let bytes = UnsafeRawBufferPointer(start: payload.payload, count: Int(request.length))
        var flags = session.export.writeFlags
        if request.flags.contains(.forceUnitAccess) { flags.insert(.forceUnitAccess) }
        try node.write(bytes, at: request.offset, flags: flags)
        return acknowledge(request)
    }

    private func trim(_ request: WireRequest) throws(ColdframeError) -> Bool? {
        if let reply = refuseChange(request) { return reply }
        try node.discard(at: request.offset, byteCount: UInt64(request.length))
        if request.flags.contains(.forceUnitAccess) { try node.flush() }
        return nil
    }

    private func writeZeroes(_ request: WireRequest) throws(ColdframeError) -> Bool? {
        if let reply = refuseChange(request) { return reply }
        var flags = session.export.writeFlags
        if request.flags.contains(.forceUnitAccess) { flags.insert(.forceUnitAccess) }
        if !request.flags.contains(.noHole) { flags.insert(.mayUnmap) }
        if request.flags.contains(.fastZero) { flags.insert(.noFallback) }
        try node.writeZeroes(at: request.offset, byteCount: UInt64(request.length), flags: flags)
        return nil
    }

    // MARK: Prefetch

    /// Brings the range into the host's cache by reading it.
    private func cache(_ request: WireRequest) throws(ColdframeError) -> Bool? {
        guard request.length <= WireLimit.payloadByteCount else {
            return refuse(request, .invalid, oversizedText(request))
        }
        guard isInside(request) else { return refuse(request, .invalid, outsideText(request)) }
        var offset = request.offset
        var left = Int(request.length)
        let buffer = session.buffers.take(min(left, Self.cacheStep))
        defer { session.buffers.give(buffer) }
        while left > 0 {
            let step = min(left, Self.cacheStep)
            try node.read(into: UnsafeMutableRawBufferPointer(start: buffer.payload, count: step), at: offset)
            offset += UInt64(step)
            left -= step
        }
        return nil
    }
}
