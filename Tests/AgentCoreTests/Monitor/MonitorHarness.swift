import ColdframeKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import AgentCore

/// A raw QMP client for tests: sends any bytes, reads one message at a time. It blocks on threads of the pool, because
/// a test that blocks its own would keep the agent's actor from running.
final class RawClient: @unchecked Sendable {
    // Unchecked: a test awaits each call before the next.
    let socket: Descriptor
    private var waiting: [JSONValue] = []
    private var parser = JSONParser()

    init(path: String) throws { socket = try UnixSocket.connect(path: path) }

    func send(_ text: String) async throws { try await send(Array(text.utf8)) }
    func send(_ bytes: [UInt8]) async throws {
        try await BlockingPool.shared.run { [socket] in
            var rest = bytes[...]
            while !rest.isEmpty {
                rest = rest.dropFirst(try rest.withUnsafeBytes { try socket.sendWithDescriptors($0, []) })
            }
        }
    }

    /// The next message; nil at the end of the connection or after `milliseconds` of silence.
    func next(milliseconds: Int = 20_000) async throws -> JSONValue? {
        try await BlockingPool.shared.run { try self.read(milliseconds: milliseconds) }
    }

    private func read(milliseconds: Int) throws -> JSONValue? {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        while waiting.isEmpty {
            if try socket.poll(for: .readable, timeoutMilliseconds: milliseconds).isEmpty { return nil }
            let count = try socket.read(into: buffer)
            if count == 0 { return nil }
            parser.feed(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { outcome in
                if case .success(let message) = outcome { waiting.append(message) }
            }
        }
        return waiting.removeFirst()
    }

    func call(_ text: String) async throws -> JSONValue? {
        try await send(text)
        return try await next()
    }

    /// Greeting and negotiation.
    func negotiate(outOfBand: Bool = false) async throws {
        _ = try await next()
        let enable = outOfBand ? "'oob'" : ""
        _ = try await call("{'execute': 'qmp_capabilities', 'arguments': {'enable': [\(enable)]}}")
    }
}

/// A command of the tests' own, with a name to touch.
protocol TestCommand: QAPICommand where Arguments == JSONValue, Result == JSONValue {}
enum EchoCommand: TestCommand {
    typealias Arguments = JSONValue
    typealias Result = JSONValue
    static let name = "echo"
    static let allowsOutOfBand = true
}
enum HoldCommand: TestCommand {
    typealias Arguments = JSONValue
    typealias Result = JSONValue
    static let name = "hold"
    static let allowsOutOfBand = false
}

/// Lets held commands go, in tests.
@AgentActor
final class Gate {
    private var continuations: [String: CheckedContinuation<Void, Never>] = [:]
    private(set) var started: [String] = []

    nonisolated init() {}

    func pass(_ key: String) async {
        started.append(key)
        await withCheckedContinuation { continuations[key] = $0 }
    }

    func open(_ key: String) { continuations.removeValue(forKey: key)?.resume() }

    func waitUntilStarted(_ key: String) async throws {
        while !started.contains(key) { try await Task.sleep(for: .milliseconds(2)) }
    }
}

/// A monitor registry with `echo` (allows OOB) and `hold` (waits for the gate, touches its `name`).
struct MonitorHarness {
    let registry = MonitorRegistry(logger: Logger(label: "monitor-tests"))
    let commands = CommandTable()
    let gate = Gate()
    let folder: String

    init() throws { folder = try Files.temporaryDirectory(prefix: "monitor") }

    @AgentActor
    func start(hooks: MonitorHooks = .init(), monitors: [String] = ["m"]) throws {
        let gate = gate
        let registry = registry
        commands.register(EchoCommand.self) { arguments in
            if arguments["event"] != nil { registry.post(event: "ECHO", data: [:]) }
            return arguments
        }
        commands.register(HoldCommand.self, touches: { [$0["name"]?.stringValue ?? ""] }) { arguments in
            await gate.pass(arguments["key"]?.stringValue ?? "")
            return arguments
        }
        registry.serve(commands, hooks: hooks, schemas: [])
        for id in monitors { try registry.add(id: id, chardev: .unixServer(path: path(id))) }
    }

    func path(_ id: String) -> String { "\(folder)/\(id)" }
    func client(_ id: String = "m") throws -> RawClient { try RawClient(path: path(id)) }

    func stop() async {
        await registry.stop(milliseconds: 0)
        try? Files.removeTree(folder)
    }
}

/// Runs `body` with a started harness.
func withMonitor(
    hooks: MonitorHooks = .init(), monitors: [String] = ["m"], _ body: (MonitorHarness) async throws -> Void
) async throws {
    let harness = try MonitorHarness()
    do {
        try await harness.start(hooks: hooks, monitors: monitors)
        try await body(harness)
    } catch {
        await harness.stop()
        throw error
    }
    await harness.stop()
}
