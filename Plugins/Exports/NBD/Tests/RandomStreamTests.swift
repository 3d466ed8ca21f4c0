import LinuxSystem
import Testing

@testable import NBDExport

/// Streams that are nearly right, from a seed, so that a failure can be repeated. The server outlives each and serves
/// the next client.
@Suite struct RandomStreamTests {
    /// SplitMix64.
    private struct Seeded: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var value = state
            value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
            return value ^ (value >> 31)
        }
    }

    /// Values at the edges as often as others.
    private func number(_ generator: inout Seeded, below bound: UInt64) -> UInt64 {
        switch UInt64.random(in: 0..<4, using: &generator) {
        case 0: UInt64.random(in: 0...3, using: &generator)
        case 1: bound &- UInt64.random(in: 0...4096, using: &generator)
        case 2: UInt64.max &- UInt64.random(in: 0...4096, using: &generator)
        default: UInt64.random(in: 0..<bound, using: &generator)
        }
    }

    /// Throws everything away that the server says, so that neither side waits for the other.
    private func drain(_ client: RawClient) throws {
        _ = try SystemThread.start(name: "drain") { _ = client.isClosedByServer() }
    }

    @Test(arguments: 0..<8) func requests(seed: UInt64) async throws {
        var generator = Seeded(state: seed)
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20)) { server in
            let client = try RawClient(path: server.socketPath)
            try client.enter(structured: seed % 2 == 1)
            try drain(client)
            for _ in 0..<300 {
                let type = UInt16(number(&generator, below: 9) & 0xffff)
                // A goodbye would end the stream too early.
                if type == 2 { continue }
                let length = UInt32(number(&generator, below: 1 << 18) & 0x1ff_ffff)
                let payload = type == 1 ? [UInt8](repeating: 7, count: Int(min(length, 1 << 20))) : []
                try client.request(
                    type, flags: UInt16(number(&generator, below: 32) & 0x3f),
                    offset: number(&generator, below: 1 << 20), length: type == 1 ? UInt32(payload.count) : length,
                    payload: payload)
            }
            try client.socket.shutdown(.write)
            try RawClient(path: server.socketPath).enter()
        }
    }

    @Test(arguments: 0..<8) func options(seed: UInt64) async throws {
        var generator = Seeded(state: seed)
        try await TestServer.with(MemoryDisk(byteCount: 1 << 20)) { server in
            for _ in 0..<30 {
                let client = try RawClient(path: server.socketPath)
                try client.greet()
                try drain(client)
                for _ in 0..<20 {
                    let count = Int.random(in: 0...64, using: &generator)
                    var data = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
                    // Half of them begin as a name does.
                    if Bool.random(using: &generator) { data = RawClient.metaData("d", ["base:"]) + data }
                    let number = UInt32(number(&generator, below: 12) & 0xff)
                    // The server may have gone by now.
                    guard (try? client.option(number, data)) != nil else { break }
                }
                try? client.socket.shutdown(.write)
            }
            try RawClient(path: server.socketPath).enter()
        }
    }
}
