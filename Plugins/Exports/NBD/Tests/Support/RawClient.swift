import LinuxSystem
import Synchronization

@testable import NBDExport

/// A client that sends what it is told, right or wrong. Reads end after five seconds, so that a test cannot hang.
final class RawClient: Sendable {
    struct Closed: Error {}

    let socket: Descriptor

    init(path: String) throws {
        socket = try UnixSocket.connect(path: path)
        try socket.setReceiveTimeout(milliseconds: 5000)
    }

    func send(_ bytes: [UInt8]) throws { try socket.writeAll(bytes) }

    func receive(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = try bytes.withUnsafeMutableBytes { try socket.readFull(into: $0) }
        guard got == count else { throw Closed() }
        return bytes
    }

    /// The server has closed the connection (what it sent before is skipped).
    func isClosedByServer() -> Bool {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            do {
                if try bytes.withUnsafeMutableBytes({ try socket.read(into: $0) }) == 0 { return true }
            } catch {
                return (error as? SystemError)?.errno == 104
            }
        }
    }

    // MARK: Handshake

    func greet(flags: UInt32 = 3) throws {
        _ = try receive(18)
        var bytes: [UInt8] = []
        bytes.appendBig(flags)
        try send(bytes)
    }

    func option(_ number: UInt32, _ data: [UInt8] = [], declaredByteCount: UInt32? = nil) throws {
        var bytes: [UInt8] = []
        bytes.appendBig(WireMagic.option)
        bytes.appendBig(number)
        bytes.appendBig(declaredByteCount ?? UInt32(data.count))
        try send(bytes + data)
    }

    struct OptionReply {
        var type: UInt32
        var data: [UInt8]
        var text: String { String(decoding: data, as: UTF8.self) }
    }

    func optionReply() throws -> OptionReply {
        var reader = WireReader(try receive(20))
        guard reader.integer(UInt64.self) == WireMagic.optionReply, reader.integer(UInt32.self) != nil,
            let type = reader.integer(UInt32.self), let count = reader.integer(UInt32.self)
        else { throw Closed() }
        return OptionReply(type: type, data: try receive(Int(count)))
    }

    static func goData(_ name: String) -> [UInt8] {
        var data: [UInt8] = []
        data.appendBig(UInt32(name.utf8.count))
        data.append(contentsOf: name.utf8)
        data.appendBig(UInt16(0))
        return data
    }

    static func metaData(_ name: String, _ queries: [String]) -> [UInt8] {
        var data: [UInt8] = []
        data.appendBig(UInt32(name.utf8.count))
        data.append(contentsOf: name.utf8)
        data.appendBig(UInt32(queries.count))
        for query in queries {
            data.appendBig(UInt32(query.utf8.count))
            data.append(contentsOf: query.utf8)
        }
        return data
    }

    /// Options until the transmission phase; simple replies unless `structured`.
    func enter(_ name: String = "d", structured: Bool = false) throws {
        try greet()
        if structured {
            try option(8)
            _ = try optionReply()
            try option(10, Self.metaData(name, ["base:allocation"]))
            while try optionReply().type != 1 {}
        }
        try option(7, Self.goData(name))
        while true {
            let reply = try optionReply()
            if reply.type == 1 { return }
            if reply.type >> 31 == 1 { throw Closed() }
        }
    }

    // MARK: Transmission

    func request(
        _ type: UInt16, flags: UInt16 = 0, cookie: UInt64 = 7, offset: UInt64 = 0, length: UInt32 = 0,
        magic: UInt32 = WireMagic.request, payload: [UInt8] = []
    ) throws {
        var bytes: [UInt8] = []
        bytes.appendBig(magic)
        bytes.appendBig(flags)
        bytes.appendBig(type)
        bytes.appendBig(cookie)
        bytes.appendBig(offset)
        bytes.appendBig(length)
        try send(bytes + payload)
    }

    /// Error and cookie of a simple reply without data.
    func simpleReply() throws -> (error: UInt32, cookie: UInt64) {
        var reader = WireReader(try receive(16))
        guard reader.integer(UInt32.self) == WireMagic.simpleReply, let error = reader.integer(UInt32.self),
            let cookie = reader.integer(UInt64.self)
        else { throw Closed() }
        return (error, cookie)
    }

    struct Chunk: Equatable {
        var isLast: Bool
        var type: UInt16
        var payload: [UInt8]
    }

    func chunk() throws -> Chunk {
        var reader = WireReader(try receive(20))
        guard reader.integer(UInt32.self) == WireMagic.structuredReply, let flags = reader.integer(UInt16.self),
            let type = reader.integer(UInt16.self), reader.integer(UInt64.self) != nil,
            let count = reader.integer(UInt32.self)
        else { throw Closed() }
        return Chunk(isLast: flags & 1 == 1, type: type, payload: try receive(Int(count)))
    }
}
