import ColdframeKit
import LinuxSystem
import QMPWire
import Testing

@testable import AgentCore

/// Events that come faster than they are sent.
struct LimitedEventsTests {
    @Test("Of a kind and a node the first is sent at once, and the last of the others when the time is over")
    func firstAndLast() async throws {
        let sent = Locked<[String]>([])
        let events = LimitedEvents(nanoseconds: 300_000_000) { name, data in
            sent.withLock { $0.append("\(name) \(data["node-name"]?.stringValue ?? "") \(data["n"]?.intValue ?? 0)") }
        }
        for number in 1...100 {
            for node in ["a", "b"] { events.post("BAD", ["node-name": .string(node), "n": .integer(Int64(number))]) }
            events.post("FAILURE", ["n": .integer(Int64(number))])
        }
        try await until { sent.withLock { $0.count } == 6 }
        #expect(
            Set(sent.withLock { $0 }) == ["BAD a 1", "BAD b 1", "FAILURE  1", "BAD a 100", "BAD b 100", "FAILURE  100"])
        // Nothing is left of them: the next one is a first one again.
        try await Task.sleep(nanoseconds: 700_000_000)
        events.post("FAILURE", ["n": 200])
        try await until { sent.withLock { $0.last } == "FAILURE  200" }
        #expect(sent.withLock { $0.count } == 7)
    }

    private func until(_ isTrue: () -> Bool) async throws {
        for _ in 0..<6000 {
            if isTrue() { return }
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        Issue.record("it did not happen within a minute")
    }
}
