import ColdframeKit
import LinuxSystem
import QMPWire
import Testing

@testable import AgentCore

@Suite struct MonitorTests {
    @Test func greets() async throws {
        try await withMonitor { harness in
            let greeting = try await harness.client().next()
            #expect(greeting?["QMP"]?["version"]?["qemu"]?["major"] == 7)
            #expect(greeting?["QMP"]?["capabilities"] == ["oob"])
        }
    }

    @Test func eventsComeAfterNegotiationOnly() async throws {
        try await withMonitor(monitors: ["a", "b"]) { harness in
            let silent = try harness.client("a")
            let listening = try harness.client("b")
            _ = try await silent.next()
            try await listening.negotiate()
            await harness.registry.post(event: "SOMETHING", data: ["x": 1])
            let event = try await listening.next()
            #expect(event?["event"] == "SOMETHING")
            #expect(event?["data"] == ["x": 1])
            #expect(try await silent.next(milliseconds: 50) == nil)
        }
    }

    @Test func anEventOfACommandComesBeforeItsReply() async throws {
        try await withMonitor { harness in
            let client = try harness.client()
            try await client.negotiate()
            #expect(try await client.call("{'execute': 'echo', 'arguments': {'event': 1}}")?["event"] == "ECHO")
            #expect(try await client.next()?["return"] == ["event": 1])
        }
    }

    @Test func theSecondClientWaits() async throws {
        try await withMonitor { harness in
            let first = try harness.client()
            _ = try await first.next()
            let second = try harness.client()
            #expect(try await second.next(milliseconds: 50) == nil)
            first.socket.close()
            #expect(try await second.next()?["QMP"] != nil)
        }
    }

    @Test func duplicateIdentifiersAreRefused() async throws {
        try await withMonitor { harness in
            await #expect(throws: ColdframeError.self) {
                try await harness.registry.add(id: "m", chardev: .unixServer(path: harness.path("other")))
            }
        }
    }

    @Test func tcpServesLoopbackOnly() async throws {
        try await withMonitor { harness in
            let port = try await harness.registry.add(id: "t", chardev: .tcpServer(host: "127.0.0.1", port: 0))
            #expect((port ?? 0) > 0)
            await #expect(throws: ColdframeError.self) {
                try await harness.registry.add(id: "u", chardev: .tcpServer(host: "0.0.0.0", port: 0))
            }
        }
    }

    @Test func aLongSocketPathIsRefused() async throws {
        try await withMonitor { harness in
            let path = harness.path(String(repeating: "x", count: 200))
            await #expect(throws: ColdframeError.self) {
                try await harness.registry.add(id: "long", chardev: .unixServer(path: path))
            }
        }
    }

    @Test func outOfBandOvertakes() async throws {
        try await withMonitor { harness in
            let client = try harness.client()
            try await client.negotiate(outOfBand: true)
            try await client.send("{'execute': 'hold', 'arguments': {'name': 'n', 'key': 'k'}, 'id': 1}")
            try await harness.gate.waitUntilStarted("k")
            #expect(try await client.call("{'exec-oob': 'echo', 'id': 2}")?["id"] == 2)
            await harness.gate.open("k")
            #expect(try await client.next()?["id"] == 1)
        }
    }

    @Test func outOfBandIsRefusedForOthers() async throws {
        try await withMonitor { harness in
            let client = try harness.client()
            try await client.negotiate(outOfBand: true)
            #expect(
                try await client.call("{'exec-oob': 'hold'}")?["error"]?["desc"]
                    == "The command hold does not support OOB")
        }
    }

    @Test func aHeldNameDelaysOthersThatNeedIt() async throws {
        try await withMonitor(monitors: ["a", "b", "c"]) { harness in
            let clients = try ["a", "b", "c"].map { try harness.client($0) }
            for client in clients { try await client.negotiate() }
            try await clients[0].send("{'execute': 'hold', 'arguments': {'name': 'n', 'key': 'first'}}")
            try await harness.gate.waitUntilStarted("first")
            try await clients[1].send("{'execute': 'hold', 'arguments': {'name': 'n', 'key': 'second'}}")
            try await clients[2].send("{'execute': 'hold', 'arguments': {'name': 'other', 'key': 'third'}}")
            try await harness.gate.waitUntilStarted("third")
            #expect(await harness.gate.started == ["first", "third"])
            await harness.gate.open("first")
            try await harness.gate.waitUntilStarted("second")
            await harness.gate.open("second")
            await harness.gate.open("third")
            for client in clients { #expect(try await client.next()?["return"] != nil) }
        }
    }

    @Test func repliesKeepTheirOrder() async throws {
        try await withMonitor { harness in
            let client = try harness.client()
            try await client.negotiate(outOfBand: true)
            for id in 0..<200 { try await client.send("{'execute': 'echo', 'id': \(id)}") }
            for id in 0..<200 { #expect(try await client.next()?["id"] == .integer(Int64(id))) }
        }
    }

    @Test func aPausedRegistryGreetsAndStartsNothing() async throws {
        try await withMonitor { harness in
            await harness.registry.setPaused(true)
            let client = try harness.client()
            #expect(try await client.next()?["QMP"] != nil)
            try await client.send("{'execute': 'qmp_capabilities', 'id': 1}{'execute': 'echo', 'id': 2}")
            #expect(try await client.next(milliseconds: 50) == nil)
            await harness.registry.setPaused(false)
            for id: JSONValue in [1, 2] { #expect(try await client.next()?["id"] == id) }
        }
    }

    @Test func unknownCommandsGoToTheGuest() async throws {
        let hooks = MonitorHooks(
            passThrough: { name, arguments in name == "query-status" ? ["running": true] : nil },
            guestCommands: { ["query-status"] })
        try await withMonitor(hooks: hooks) { harness in
            let client = try harness.client()
            try await client.negotiate()
            #expect(try await client.call("{'execute': 'query-status'}")?["return"] == ["running": true])
            #expect(try await client.call("{'execute': 'zz'}")?["error"]?["class"] == "CommandNotFound")
            let names = try await client.call("{'execute': 'query-commands'}")?["return"]?.arrayValue ?? []
            #expect(names.contains(["name": "query-status"]))
            #expect(names.contains(["name": "qmp_capabilities"]))
        }
    }

    @Test func quitAnswersFirst() async throws {
        let quit = Locked(false)
        let hooks = MonitorHooks(quit: { _ in quit.withLock { $0 = true } })
        try await withMonitor(hooks: hooks) { harness in
            let client = try harness.client()
            try await client.negotiate()
            #expect(try await client.call("{'execute': 'quit'}")?["return"] == [:])
            while !quit.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(1)) }
        }
    }

    @Test func aDisconnectedClientLeavesNothingBehind() async throws {
        try await withMonitor { harness in
            let first = try harness.client()
            try await first.negotiate()
            try await first.send("{'execute': 'hold', 'arguments': {'name': 'n', 'key': 'k'}}{'execute': ")
            try await harness.gate.waitUntilStarted("k")
            first.socket.close()
            let second = try harness.client()
            try await second.negotiate()
            await harness.gate.open("k")
            #expect(try await second.call("{'execute': 'echo', 'id': 5}") == ["return": [:], "id": 5])
        }
    }

    @Test func aSlowReaderIsDroppedAndHoldsUpNobody() async throws {
        try await withMonitor(monitors: ["slow", "quick"]) { harness in
            let slow = try harness.client("slow")
            let quick = try harness.client("quick")
            try await slow.negotiate()
            try await quick.negotiate()
            let data: JSONObject = ["text": .string(String(repeating: "x", count: 1 << 20))]
            for _ in 0..<24 {
                await harness.registry.post(event: "BIG", data: data)
                #expect(try await quick.next()?["event"] == "BIG")
            }
            #expect(try await quick.call("{'execute': 'echo', 'id': 1}")?["id"] == 1)
            // The dropped connection ends after what the kernel had taken.
            var count = 0
            while try await slow.next() != nil { count += 1 }
            #expect(count < 24)
            #expect(try await harness.client("slow").next()?["QMP"] != nil)
        }
    }

    @Test func aClientThatOnlyAsksIsHeldBack() async throws {
        try await withMonitor { harness in
            let client = try harness.client()
            try await client.negotiate()
            try client.socket.setSendTimeout(milliseconds: 300)
            let text = String(repeating: "y", count: 256 << 10)
            // Sending stops making way long before this much is answered and kept for us.
            var sent = 0
            while sent < 400, (try? await client.send("{'execute': 'echo', 'arguments': {'t': '\(text)'}}")) != nil {
                sent += 1
            }
            #expect(sent < 100)
        }
    }
}
