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
    private let guest: QEMUGuest
    private let way: CaptureWay
    private let onEnd: @AgentActor () -> Void
    private var writeEnd: Descriptor?
    private var keeperCapture: UInt64?
    private let setup: MigrationSetup
    private let ending: MigrationEnding
    private var phase = Phase.preparing
    private var isMigrating = false
    /// The barrier's flush has come.
    private var isHeld = false
    private var failure: ColdframeError?
    private var waiters: [CheckedContinuation<Void, Never>] = []
    private var stopStamp: UInt64?
    private var resumeStamp: UInt64?
    private var stopping: Task<Void, any Error>?
    private var converging: Task<Void, any Error>?
    private var continuing: Task<Void, Never>?
    /// The migration of a paused guest on its way, after the release.
    private var starting: Task<Void, Never>?
    private var abandoning: Task<Void, Never>?
    private var alarm: Task<Void, any Error>?

    private enum Phase { case preparing, armed, released, ended }

    /// QEMU's name for the descriptor that the stream goes to.
    static let descriptorName = "coldframe-capture"
    /// What lies between QEMU and the reader, who in a precopy has it all to take while the guest stands still.
    private static func bufferByteCount(_ way: CaptureWay) -> Int { way == .precopy ? 512 << 10 : 4 << 20 }

    init(guest: QEMUGuest, way: CaptureWay, onEnd: @escaping @AgentActor () -> Void) throws {
        self.guest = guest
        self.way = way
        self.onEnd = onEnd
        let (readEnd, writeEnd) = try UnixSocket.pair()
        stream = readEnd
        self.writeEnd = writeEnd
        // Smaller buffers only cost speed.
        try? writeEnd.setSendBufferByteCount(Self.bufferByteCount(way))
        setup = MigrationSetup(monitor: guest.monitor)
        ending = MigrationEnding(guest: guest)
    }

    // MARK: Arming

    func begin() async throws {
        do {
            keeperCapture = try await guest.keeper.hold(stream, ending: way == .live ? .drain : .sever)
            try await setup.apply(isBackground: way == .live)
            guard let writeEnd else { throw ColdframeError(.io, "The capture has no stream") }
            try await guest.monitor.execute(
                "getfd", ["fdname": .string(Self.descriptorName)], descriptors: [writeEnd.raw])
            // From here on only QEMU has the write end, so that its close is the stream's end.
            self.writeEnd = nil
            writeEnd.close()
            guest.barrier.arm { [weak self] in Task { @AgentActor in self?.held() } }
            phase = .armed
            alarm = Task { [weak self, limit = limitMilliseconds] in
                try await Task.sleep(nanoseconds: limit * 1_000_000)
                self?.overdue()
            }
            switch way {
            case .live: try await migrate()
            case .precopy:
                try await migrate()
                let convergence = PrecopyConvergence(monitor: guest.monitor, setup: setup)
                converging = Task { [weak self] in
                    try await convergence.run { self?.isConverging ?? false }
                }
            case .paused:
                let monitor = guest.monitor
                // The reply comes when the barrier lets go.
                stopping = Task { try await monitor.execute("stop") }
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
        alarm?.cancel()
        wake()
    }

    /// Until the barrier's flush. Live: RAM is faulted in first (some 40 ms per GiB). Precopy: all RAM is sent first.
    private var limitMilliseconds: UInt64 {
        switch way {
        case .live: 120_000
        case .precopy: 3_600_000
        case .paused: 60_000
        }
    }

    private func overdue() {
        guard !isHeld, phase == .armed else { return }
        fail(ColdframeError(.timedOut, "QEMU did not come to the barrier within \(limitMilliseconds / 1000) s"))
    }

    /// A precopy that has not stopped the guest yet.
    private var isConverging: Bool { isMigrating && !isHeld && phase == .armed && failure == nil }

    // MARK: Verbs

    func stopping() async throws {
        while stopStamp == nil, !isHeld, failure == nil { await untilWoken() }
        if let failure { throw failure }
    }

    func stopped() async throws {
        while !isHeld {
            if let failure { throw failure }
            await untilWoken()
        }
        if let failure { throw failure }
    }

    func release() {
        guard phase == .armed else { return }
        phase = .released
        if !guest.barrier.release() {
            // The disks were cut while the guest ran: they are not of one moment with the RAM.
            fail(
                ColdframeError(
                    .timedOut,
                    "The disks were not cut within \(BarrierDriver.holdLimitMilliseconds) ms, for which the guest may be held"
                ))
        }
        guard way == .paused else { return }
        starting = Task {
            do {
                try await stopping?.value
                if failure == nil { try await migrate() }
            } catch {
                fail(ColdframeError(wrapping: error))
            }
            // The reader waits for the stream's end, which comes when nobody has the other end.
            if !isMigrating { await closeQEMUsEnd() }
        }
    }

    private func closeQEMUsEnd() async {
        // An error: `migrate` has taken it, or QEMU is gone.
        _ = try? await guest.monitor.execute("closefd", ["fdname": .string(Self.descriptorName)])
    }

    func goneOn() async {
        while resumeStamp == nil, failure == nil, phase != .ended { await untilWoken() }
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
            try await ending.completion { [weak self] in try self?.throwFailure() }
            isMigrating = false
            await continuing?.value
            try await ending.restoreRunState()
            await awaitResume()
        } catch {
            await abandon()
            throw error
        }
        await end()
        guard let stopStamp, let resumeStamp, resumeStamp >= stopStamp else {
            return CaptureResult(pauseNanoseconds: nil)
        }
        return CaptureResult(pauseNanoseconds: (resumeStamp - stopStamp) * 1000)
    }

    func abandon() async {
        guard phase != .ended else { return }
        // Whoever comes second waits for the same way back.
        let way = abandoning ?? Task { await giveUp() }
        abandoning = way
        await way.value
    }

    private func giveUp() async {
        guard phase != .ended else { return }
        phase = .released
        fail(ColdframeError(.cancelled, "The capture was given up"))
        guest.barrier.release()
        writeEnd?.close()
        writeEnd = nil
        // A guest that is gone cannot be told anything; the stream's end comes by itself.
        try? await stopping?.value
        await starting?.value
        if isMigrating {
            // Not `migrate_cancel`: one that meets the migration's last step leaves 7.2 with disks that it takes for given
            // away, and the next write or capture aborts the process. A broken stream takes QEMU's path of an error, which
            // has no such gap. In the live way only the stream's end frees the guest.
            if way == .live { await drain() } else { try? stream.shutdown(.both) }
            await ending.untilNotMigrating()
            isMigrating = false
        } else {
            await closeQEMUsEnd()
        }
        await continuing?.value
        try? await ending.restoreRunState()
        await end()
    }

    // MARK: The end

    private func end() async {
        guard phase != .ended else { return }
        phase = .ended
        wake()
        alarm?.cancel()
        converging?.cancel()
        await setup.restore()
        if let keeperCapture { await guest.keeper.release(keeperCapture) }
        keeperCapture = nil
        stream.close()
        onEnd()
    }

    /// Reads and discards at full speed to the stream's end.
    private func drain() async {
        // A number of its own, so that it is nobody else's if the capture ends meanwhile.
        let stream = (try? stream.duplicate()) ?? stream
        await BlockingPool.shared.run {
            let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
            defer { scratch.deallocate() }
            while let count = try? stream.read(into: scratch), count > 0 {}
        }
    }

    /// RESUME is sent before the reply to `cont`, but comes to the actor by another way.
    private func awaitResume() async {
        guard stopStamp != nil else { return }
        for _ in 0..<500 where resumeStamp == nil { try? await Task.sleep(nanoseconds: 2_000_000) }
    }

    // MARK: What happens meanwhile

    func receive(_ event: JSONObject) {
        switch event["event"]?.stringValue {
        case "STOP":
            stopStamp = stopStamp ?? Self.microseconds(event)
            wake()
        case "RESUME":
            resumeStamp = resumeStamp ?? Self.microseconds(event)
            wake()
        case "MIGRATION":
            switch event["data"]?["status"]?.stringValue {
            case "failed": fail(ColdframeError(.peer, "QEMU's migration failed"))
            case "completed" where phase == .armed && !isHeld:
                fail(
                    ColdframeError(
                        .peer, "QEMU passed the barrier without a flush: its connection to the barrier is lost"))
            case "completed" where way != .live && phase == .released && failure == nil:
                // Every millisecond counts: the guest stands still until this.
                // Its error comes again at the end, where the run state is looked at.
                continuing = Task { try? await ending.continueSoon() }
            default: break
            }
        default: break
        }
    }

    func guestEnded(_ reason: String) {
        fail(ColdframeError(.peer, "The guest ended during the capture (\(reason))"))
    }

    /// Events may be lost.
    func monitorInterrupted() {
        fail(
            ColdframeError(
                .peer,
                "The connection to the guest's monitor ended during the capture: the guest has ended, or what it did "
                    + "meanwhile is not known"))
    }

    private func fail(_ error: ColdframeError) {
        if failure == nil { failure = error }
        wake()
    }

    private func throwFailure() throws {
        if let failure { throw failure }
    }

    private func untilWoken() async { await withCheckedContinuation { waiters.append($0) } }

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
