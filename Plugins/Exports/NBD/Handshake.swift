import LinuxSystem

/// Fixed newstyle negotiation, on the connection's first thread. It blocks as the client pleases; the server ends
/// connections that take too long.
struct Handshake {
    /// What both sides agreed on.
    struct Agreement {
        let export: NamedExport
        let isStructured: Bool
        let contexts: MetaContexts
    }

    let socket: Descriptor
    let exports: ExportTable
    /// Binds the connection to the export that the client chose, before the client is told: whoever looks at the export
    /// from then on sees the client. False if the export is being removed.
    let claim: (NamedExport) -> Bool

    private var hasZeroes = true
    private var isStructured = false
    /// What the client has chosen, and the export for which.
    private var selection: (export: NamedExport, contexts: MetaContexts)?

    init(socket: Descriptor, exports: ExportTable, claim: @escaping (NamedExport) -> Bool) {
        self.socket = socket
        self.exports = exports
        self.claim = claim
    }

    /// Why a negotiation ends without an agreement.
    private enum End: Error {
        case disconnected
    }

    /// nil if the client left, broke the protocol or asked in vain where the protocol has no error reply.
    func run() -> Agreement? {
        var copy = self
        return try? copy.negotiate()
    }

    private mutating func negotiate() throws -> Agreement {
        var greeting: [UInt8] = []
        greeting.appendBig(WireMagic.greeting)
        greeting.appendBig(WireMagic.option)
        let ours: WireHandshakeFlags = [.fixedNewstyle, .noZeroes]
        greeting.appendBig(UInt16(ours.rawValue))
        try socket.writeAll(greeting)

        var reader = WireReader(try receive(4))
        let flags = WireHandshakeFlags(rawValue: reader.integer(UInt32.self) ?? 0)
        guard ours.isSuperset(of: flags) else { throw End.disconnected }
        hasZeroes = !flags.contains(.noZeroes)

        while true {
            var head = WireReader(try receive(16))
            guard head.integer(UInt64.self) == WireMagic.option, let number = head.integer(UInt32.self),
                let byteCount = head.integer(UInt32.self)
            else { throw End.disconnected }
            let option = WireOption(rawValue: number)
            guard byteCount <= WireLimit.optionByteCount else {
                // Not read to its end: a client that means harm would keep this thread busy.
                if option != .exportName {
                    try reply(number, .tooBig, "Options are limited to \(WireLimit.optionByteCount) bytes")
                }
                throw End.disconnected
            }
            let data = try receive(Int(byteCount))
            // A client that does not know fixed newstyle expects no reply to an option.
            guard flags.contains(.fixedNewstyle) || option == .exportName else { throw End.disconnected }
            if let agreement = try answer(number, option, data) { return agreement }
        }
    }

    private mutating func answer(_ number: UInt32, _ option: WireOption?, _ data: [UInt8]) throws -> Agreement? {
        switch option {
        case .exportName: return try enter(byOldOption: data)
        case .abort:
            try reply(number, .acknowledge)
            throw End.disconnected
        case .list: try list(number, data)
        case .info: _ = try inform(number, data, enters: false)
        case .go: return try inform(number, data, enters: true)
        case .structuredReply:
            guard data.isEmpty else { try reply(number, .invalid, "The option takes no data"); break }
            guard !isStructured else { try reply(number, .invalid, "Structured replies are already agreed on"); break }
            isStructured = true
            try reply(number, .acknowledge)
        case .listMetaContext: try metaContexts(number, data, selects: false)
        case .setMetaContext: try metaContexts(number, data, selects: true)
        case .startTLS: try reply(number, .unsupported, "This server does not offer TLS")
        case nil: try reply(number, .unsupported, "Option \(number) is not known here")
        }
        return nil
    }

    // MARK: Options

    private func enter(byOldOption data: [UInt8]) throws -> Agreement {
        // There is no error reply to this option.
        guard data.count <= WireLimit.stringByteCount, let name = String(validating: data, as: UTF8.self),
            let export = exports.find(name), claim(export)
        else { throw End.disconnected }
        var bytes: [UInt8] = []
        bytes.appendBig(export.node.byteCount)
        bytes.appendBig(transmissionFlags(export).rawValue)
        if hasZeroes { bytes.append(contentsOf: repeatElement(0, count: 124)) }
        try socket.writeAll(bytes)
        return agreement(export)
    }

    private func list(_ number: UInt32, _ data: [UInt8]) throws {
        guard data.isEmpty else { return try reply(number, .invalid, "The option takes no data") }
        for export in exports.all {
            var item: [UInt8] = []
            item.appendBig(UInt32(export.name.utf8.count))
            item.append(contentsOf: export.name.utf8)
            item.append(contentsOf: (export.description ?? "").utf8)
            try reply(number, .server, bytes: item)
        }
        try reply(number, .acknowledge)
    }

    private func inform(_ number: UInt32, _ data: [UInt8], enters: Bool) throws -> Agreement? {
        var reader = WireReader(data)
        guard let name = reader.string(), let count = reader.integer(UInt16.self),
            reader.remainingByteCount == Int(count) * 2
        else {
            try reply(number, .invalid, "The data of the option is malformed")
            return nil
        }
        guard let export = exports.find(name) else {
            try reply(number, .unknownExport, "There is no export '\(name)'")
            return nil
        }
        guard !enters || claim(export) else {
            try reply(number, .shuttingDown, "Export '\(name)' is being removed")
            return nil
        }
        var wanted: Set<WireInfo> = []
        while let item = reader.integer(UInt16.self) {
            if let item = WireInfo(rawValue: item) { wanted.insert(item) }
        }
        if wanted.contains(.name) { try sendInfo(number, .name) { $0.append(contentsOf: export.name.utf8) } }
        if wanted.contains(.description), let description = export.description {
            try sendInfo(number, .description) { $0.append(contentsOf: description.utf8) }
        }
        try sendInfo(number, .blockSize) {
            $0.appendBig(UInt32(1))
            $0.appendBig(export.preferredByteCount)
            $0.appendBig(UInt32(WireLimit.payloadByteCount))
        }
        try sendInfo(number, .export) {
            $0.appendBig(export.node.byteCount)
            $0.appendBig(transmissionFlags(export).rawValue)
        }
        try reply(number, .acknowledge)
        return enters ? agreement(export) : nil
    }

    private mutating func metaContexts(_ number: UInt32, _ data: [UInt8], selects: Bool) throws {
        // A new selection replaces the old one, also when it fails.
        if selects { selection = nil }
        guard isStructured else { return try reply(number, .invalid, "Structured replies must be agreed on first") }
        var reader = WireReader(data)
        guard let name = reader.string(), let count = reader.integer(UInt32.self) else {
            return try reply(number, .invalid, "The data of the option is malformed")
        }
        guard let export = exports.find(name) else {
            return try reply(number, .unknownExport, "There is no export '\(name)'")
        }
        var contexts = count == 0 && !selects ? MetaContexts.all(of: export) : MetaContexts()
        for _ in 0..<count {
            guard let query = reader.string() else {
                return try reply(number, .invalid, "The data of the option is malformed")
            }
            contexts.add(query, of: export, lists: !selects)
        }
        guard reader.remainingByteCount == 0 else {
            return try reply(number, .invalid, "The data of the option is malformed")
        }
        for (id, name) in contexts.named(of: export) {
            var item: [UInt8] = []
            item.appendBig(id)
            item.append(contentsOf: name.utf8)
            try reply(number, .metaContext, bytes: item)
        }
        if selects { selection = (export, contexts) }
        try reply(number, .acknowledge)
    }

    // MARK: Parts

    private func agreement(_ export: NamedExport) -> Agreement {
        // A selection for another export, also one of the same name that came later, counts for nothing.
        let contexts = selection.flatMap { $0.export === export ? $0.contexts : nil } ?? MetaContexts()
        return Agreement(export: export, isStructured: isStructured, contexts: contexts)
    }

    private func transmissionFlags(_ export: NamedExport) -> WireTransmissionFlags {
        isStructured ? export.flags.union(.sendDontFragment) : export.flags
    }

    private func sendInfo(_ option: UInt32, _ info: WireInfo, _ fill: (inout [UInt8]) -> Void) throws {
        var bytes: [UInt8] = []
        bytes.appendBig(info.rawValue)
        fill(&bytes)
        try reply(option, .info, bytes: bytes)
    }

    private func reply(_ option: UInt32, _ type: WireOptionReply, _ text: String) throws {
        try reply(option, type, bytes: Array(text.utf8.prefix(WireLimit.stringByteCount)))
    }

    private func reply(_ option: UInt32, _ type: WireOptionReply, bytes: [UInt8] = []) throws {
        var message: [UInt8] = []
        message.reserveCapacity(20 + bytes.count)
        message.appendBig(WireMagic.optionReply)
        message.appendBig(option)
        message.appendBig(type.rawValue)
        message.appendBig(UInt32(bytes.count))
        message.append(contentsOf: bytes)
        try socket.writeAll(message)
    }

    private func receive(_ byteCount: Int) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            let target = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<byteCount])
            count = byteCount == 0 ? 0 : try socket.readFull(into: target)
            guard count == byteCount else { throw End.disconnected }
        }
    }
}
