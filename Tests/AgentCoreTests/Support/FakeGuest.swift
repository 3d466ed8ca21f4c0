import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// A guest that does what the test says, and writes down what was asked of it.
@AgentActor
final class FakeGuest: ReplaceableGuest {
    let id = "g"
    var disks: [GuestDisk]
    var state = GuestRunState.running
    var blockers: [CaptureWay: [String]] = [:]
    /// Ways that are refused only when they are tried.
    var refusals: [CaptureWay: String] = [:]
    var machine = MachineIdentity(machineType: "pc-q35-7.2", vmmVersion: "7.2", commandLine: ["x"], memoryByteCount: 64)
    var log: [String] = []
    /// The state that a capture sends.
    var ram = [UInt8](repeating: 7, count: 100_000)
    /// Called at each step of a capture, by the step's name, before it is done.
    var at: @AgentActor (String) async throws -> Void = { _ in }
    /// The step at which a capture stands still until it is abandoned.
    var hang: String?
    var loadFailure: ColdframeError?
    /// The disks cannot be passed to a second process.
    var passFailure: ColdframeError?
    /// What a guest that is taken over says of a load.
    var loadOutcome = InterruptedLoad.notBegun
    var wasTakenOver = false
    private(set) var isMemoryLost = false
    private(set) var capture: FakeCapture?
    /// What loadState was given.
    private(set) var loadedTag: String?

    var replacementBlockers: [String] = []
    private(set) var replacement: FakeReplacement?
    let slot: Int
    var freeSlot: Int { 1 - slot }

    init(disks: [String], slot: Int = 0) {
        self.disks = disks.map { GuestDisk(name: $0, nodeName: $0) }
        self.slot = slot
    }

    func replacementBlockers(stateByteCount: UInt64) async throws -> [String] { replacementBlockers }

    func beginReplacement() async throws -> any GuestReplacement {
        log.append("replace")
        try await at("replace")
        let replacement = try FakeReplacement(of: self)
        self.replacement = replacement
        return replacement
    }

    func information() async -> GuestInfo {
        GuestInfo(id: id, driver: "fake", status: "running", disks: disks.map(\.name), nodes: diskNodeNames)
    }
    func runState() async throws -> GuestRunState { state }
    func machineIdentity() async throws -> MachineIdentity { machine }
    func blockers(for way: CaptureWay) async throws -> [String] { blockers[way] ?? [] }

    func beginCapture(way: CaptureWay) async throws -> any GuestCapture {
        log.append("begin \(way.rawValue)")
        try await at("begin")
        if let refusal = refusals[way] { throw ColdframeError(.peer, refusal) }
        let capture = try FakeCapture(guest: self, wasRunning: state == .running)
        self.capture = capture
        return capture
    }

    func setHeld(_ isHeld: Bool) {}
    func stop() async throws {
        log.append("stop")
        try await at("stop")
        state = .stopped("paused")
    }
    func cont() async throws {
        log.append("cont")
        try await at("cont")
        state = .running
    }
    func loadState(imagePath: String, tag: String) async throws {
        log.append("load")
        try await at("load")
        if let loadFailure { throw loadFailure }
        loadedTag = tag
    }
    func interruptedLoad() async throws -> InterruptedLoad {
        log.append("ask")
        try await at("ask")
        return loadOutcome
    }
    func concludeLoad() async {
        log.append("conclude")
        loadOutcome = .notBegun
    }
    func setMemoryLost(_ isLost: Bool) { isMemoryLost = isLost }
    func leave() async { log.append("leave") }
    func passThrough(_ command: String, arguments: JSONObject?) async throws(QMPError) -> JSONValue { [:] }
    func ownCommands() async throws -> [String] { [] }
    func ownSchema() async throws -> [JSONValue] { [] }
    func remove(force: Bool) async throws {
        log.append("remove")
        try await at("remove")
    }
}

/// A capture of a `FakeGuest`: it stops at once, and its RAM comes after the release.
@AgentActor
final class FakeCapture: GuestCapture {
    nonisolated let stream: Descriptor
    private let guest: FakeGuest
    private let wasRunning: Bool
    private let writeEnd: Descriptor
    private var waiters: [CheckedContinuation<Void, Never>] = []
    private var isAbandoned = false

    init(guest: FakeGuest, wasRunning: Bool) throws {
        self.guest = guest
        self.wasRunning = wasRunning
        let (readEnd, writeEnd) = try UnixSocket.pair()
        stream = readEnd
        self.writeEnd = writeEnd
    }

    func stopped() async throws {
        try await pass("stopped")
        guest.state = .stopped("finish-migrate")
        guest.log.append("stopped")
    }

    func release() {
        guest.log.append("release")
        if wasRunning { guest.state = .running }
        guard guest.hang != "stream" else { return }
        let (end, ram) = (writeEnd, guest.ram)
        Task.detached {
            // A reader that has gone is what some tests are about.
            await BlockingPool.shared.run { ram.withUnsafeBytes { _ = try? end.writeAll($0) } }
            end.close()
        }
    }

    func progress() async -> (current: UInt64, total: UInt64)? { nil }

    func finish() async throws -> CaptureResult {
        guest.log.append("finish")
        try await pass("finish")
        stream.close()
        return CaptureResult(pauseNanoseconds: wasRunning ? 3_000_000 : nil)
    }

    func abandon() async {
        guard !isAbandoned else { return }
        isAbandoned = true
        guest.log.append("abandon")
        writeEnd.close()
        stream.close()
        guest.state = wasRunning ? .running : guest.state
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.resume() }
    }

    /// Does what the test wants at a step, and fails if the capture was given up.
    private func pass(_ step: String) async throws {
        try await guest.at(step)
        if guest.hang == step, !isAbandoned { await withCheckedContinuation { waiters.append($0) } }
        if isAbandoned { throw ColdframeError(.cancelled, "The capture was given up") }
    }
}
