import ColdframeKit
import LinuxSystem
import QMPWire

/// One capture of a guest's RAM.
///
/// - live: `background-snapshot`. QEMU stops by itself, and runs again when the barrier lets go; the RAM follows. It must
///   be read to its end whatever happens: a capture that is cancelled or closed freezes the guest for good.
/// - precopy: the RAM streams, then QEMU stops by itself; when it is done, `cont`.
/// - paused: `stop`, then, when the disks are cut, the whole migration, then `cont`.
@AgentActor
final class QEMUCapture: GuestCapture {
    nonisolated let stream: Descriptor
    private unowned let guest: QEMUGuest
    private let way: CaptureWay
    private let wasRunning: Bool
    private let onEnd: @AgentActor () -> Void
    private var writeEnd: Descriptor?
    private var keeperCapture: UInt64?
    private let setup: MigrationSetup
    private var phase = Phase.preparing
    private var isMigrating = false
    /// The barrier's flush has come.
    private var isHeld = false
    private var failure: ColdframeError?
    private var waiters: [CheckedContinuation<Void, Never>] = []
    private var stopStamp: UInt64?
    private var resumeStamp: UInt64?
    private var stopping: Task<Void, any Error>?
    private var continuing: Task<Void, Never>?

    private enum Phase { case preparing, armed, released, ended }

    /// QEMU's name for the descriptor that the stream goes to.
    private static let descriptorName = "coldframe-capture"
    private static let bufferByteCount = 4 << 20

    init(guest: QEMUGuest, way: CaptureWay, wasRunning: Bool, onEnd: @escaping @AgentActor () -> Void) throws {
        self.guest = guest
        self.way = way
        self.wasRunning = wasRunning
        self.onEnd = onEnd
        let (readEnd, writeEnd) = try UnixSocket.pair()
        stream = readEnd
        self.writeEnd = writeEnd
        // Smaller buffers only cost speed.
        try? writeEnd.setSendBufferByteCount(Self.bufferByteCount)
        setup = MigrationSetup(monitor: guest.monitor)
    }

    // MARK: Arming

    func begin() async throws {
        do {
            keeperCapture = try await guest.keeper.hold(stream)
            try await setup.apply(isBackground: way == .live)
            guard let writeEnd else { throw ColdframeError(.io, "The capture has no stream") }
            try await guest.monitor.execute(
                "getfd", ["fdname": .string(Self.descriptorName)], descriptors: [writeEnd.raw])
            // From here on only QEMU has the write end, so that its close is the stream's end.
            self.writeEnd = nil
            writeEnd.close()
            if wasRunning || way != .paused {
                guest.barrier.arm { [weak self] in Task { @AgentActor in self?.held() } }
            }
            phase = .armed
            switch way {
            case .live, .precopy: try await migrate()
            case .paused:
                if wasRunning {
                    let monitor = guest.monitor
                    // The reply comes when the barrier lets go.
                    stopping = Task { try await monitor.execute("stop") }
                } else {
                    isHeld = true
                }
            }
        } catch {
            await abandon()
            throw error
        }
    }

    private func migrate() async throws {
        isMigrating = true
        do {
            try await guest.monitor.execute("migrate", ["uri": .string("fd:" + Self.descriptorName)])
        } catch {
            isMigrating = false
            throw error
        }
    }

    private func held() {
        isHeld = true
        wake()
    }

    // MARK: Verbs

    func stopped() async throws {
        while !isHeld {
            if let failure { throw failure }
            await withCheckedContinuation { waiters.append($0) }
        }
        if let failure { throw failure }
    }

    func release() {
        guard phase == .armed else { return }
        phase = .released
        guest.barrier.release()
        guard way == .paused else { return }
        Task {
            do {
                try await stopping?.value
                if phase == .released { try await migrate() }
            } catch {
                fail(ColdframeError(wrapping: error))
            }
        }
    }

    func progress() async -> (current: UInt64, total: UInt64)? {
        // A guest that is held at the barrier does not answer.
        guard isMigrating, phase != .ended, !(isHeld && phase == .armed) else { return nil }
        guard let ram = try? await guest.monitor.execute("query-migrate", timeoutMilliseconds: 1_000)["ram"],
            let done = ram["transferred"]?.uint64Value, let remaining = ram["remaining"]?.uint64Value
        else { return nil }
        return (done, done + remaining)
    }

    func finish() async throws -> CaptureResult {
        do {
            try await waitForCompletion()
            await continuing?.value
            try await restoreRunState()
        } catch {
            await abandon()
            throw error
        }
        await end()
        guard wasRunning, let stopStamp, let resumeStamp, resumeStamp >= stopStamp else {
            return CaptureResult(pauseNanoseconds: nil)
        }
        return CaptureResult(pauseNanoseconds: (resumeStamp - stopStamp) * 1000)
    }

    func abandon() async {
        guard phase != .ended else { return }
        phase = .released
        fail(ColdframeError(.cancelled, "The capture was given up"))
        guest.barrier.release()
        writeEnd?.close()
        writeEnd = nil
        // A guest that is gone cannot be told anything; the stream's end comes by itself.
        try? await stopping?.value
        if isMigrating {
            if way != .live { _ = try? await guest.monitor.execute("migrate_cancel") }
            await drain()
            await waitUntilNotMigrating()
        } else {
            _ = try? await guest.monitor.execute("closefd", ["fdname": .string(Self.descriptorName)])
        }
        await continuing?.value
        try? await restoreRunState()
        await end()
    }

    // MARK: The end

    private func end() async {
        phase = .ended
        await setup.restore()
        if let keeperCapture { await guest.keeper.release(keeperCapture) }
        keeperCapture = nil
        stream.close()
        onEnd()
    }

    /// Reads and discards at full speed to the stream's end.
    private func drain() async {
        let stream = stream
        await BlockingPool.shared.run {
            let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
            defer { scratch.deallocate() }
            while let count = try? stream.read(into: scratch), count > 0 {}
        }
    }

    private func waitForCompletion() async throws {
        while true {
            if let failure { throw failure }
            let status = try await guest.monitor.execute("query-migrate")["status"]?.stringValue ?? "none"
            switch status {
            case "completed":
                isMigrating = false
                return
            case "failed", "cancelled":
                isMigrating = false
                throw ColdframeError(.peer, "QEMU's migration ended as '\(status)'")
            default:
                try await Task.sleep(nanoseconds: 2_000_000)
            }
        }
    }

    private func waitUntilNotMigrating() async {
        while let status = try? await guest.monitor.execute("query-migrate")["status"]?.stringValue {
            if ["completed", "failed", "cancelled", "none"].contains(status) { break }
            try? await Task.sleep(nanoseconds: 2_000_000)
        }
        isMigrating = false
    }

    /// The guest is to run if it ran before, and to stand still if it did.
    private func restoreRunState() async throws {
        switch try await guest.runState() {
        case .running: if !wasRunning { try await guest.stop() }
        case .stopped: if wasRunning { try await guest.cont() }
        case .gone: break
        }
    }

    // MARK: What happens meanwhile

    func receive(_ event: JSONObject) {
        switch event["event"]?.stringValue {
        case "STOP": stopStamp = stopStamp ?? Self.microseconds(event)
        case "RESUME": resumeStamp = resumeStamp ?? Self.microseconds(event)
        case "MIGRATION":
            switch event["data"]?["status"]?.stringValue {
            case "failed": fail(ColdframeError(.peer, "QEMU's migration failed"))
            case "completed" where wasRunning && way != .live && phase == .released && failure == nil:
                // Every millisecond counts: the guest stands still until this.
                continuing = Task { _ = try? await guest.monitor.execute("cont") }
            default: break
            }
        default: break
        }
    }

    func guestEnded(_ reason: String) {
        fail(ColdframeError(.peer, "The guest ended during the capture (\(reason))"))
    }

    private func fail(_ error: ColdframeError) {
        if failure == nil { failure = error }
        wake()
    }

    private func wake() {
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.resume() }
    }

    private static func microseconds(_ event: JSONObject) -> UInt64? {
        guard let stamp = event["timestamp"], let seconds = stamp["seconds"]?.uint64Value,
            let microseconds = stamp["microseconds"]?.uint64Value
        else { return nil }
        return seconds * 1_000_000 + microseconds
    }
}
