import ColdframeKit
import LinuxSystem
import QMPWire

/// One capture of one guest with the cut of its disks: everything between "arm" and "the state is in the image".
///
/// Whatever fails or is cancelled in between goes back the same way: the capture is abandoned (which drains it where the
/// guest needs that), what was written of the state is given back, the disks' snapshots are deleted.
@AgentActor
final class SaveAttempt {
    private static let syncAheadNanoseconds: UInt64 = 5_000_000

    private let context: SnapshotContext
    private let guest: any Guest
    private let devices: SnapshotDevices
    private let stateNode: GraphNode
    private let way: CaptureWay
    private let plan: SavePlan
    private let companions: [any TransactionStep]

    private var capture: (any GuestCapture)?
    private var writer: (any VMStateWriter)?
    private var stream: CaptureStream?
    private var transaction: Transaction?
    private var steps: [InternalSnapshotStep] = []
    private var abandoning: Task<Void, Never>?
    /// Its last flush may still run when the guest has stopped; the images must not be closed under it.
    private var syncing: Task<Void, any Error>?

    init(
        context: SnapshotContext, guest: any Guest, devices: SnapshotDevices, stateNode: GraphNode, way: CaptureWay,
        plan: SavePlan, companions: [any TransactionStep] = []
    ) {
        self.companions = companions
        self.context = context
        self.guest = guest
        self.devices = devices
        self.stateNode = stateNode
        self.way = way
        self.plan = plan
    }

    /// No snapshot is left of it on any disk.
    var isUndone: Bool { steps.allSatisfy(\.isUndone) }

    /// Prepares and arms the capture. After a throw the guest is as it was and nothing is left; `CaptureRefusal` says that
    /// another way may do.
    func begin() async throws {
        guard let bearer = stateNode.block.driver as? any VMStateBearing else {
            throw ColdframeError(.unsupported, "Node '\(stateNode.name)' has no room for the state of a machine")
        }
        do {
            let writer = try await blocking { () throws(ColdframeError) in try bearer.beginVMState() }
            self.writer = writer
            let capture = try await beginCapture()
            self.capture = capture
            try FaultPoint.saveArmed.pass()
            let stream = try CaptureStream(from: capture.stream, to: writer, flush: flushBeforeTheStop)
            try stream.start()
            self.stream = stream
        } catch {
            try await goBack(because: error)
        }
    }

    /// A precopy stores RAM before the stop, whose flushes would have to write what is left of it. The other ways store
    /// it behind the cut.
    private var flushBeforeTheStop: (@Sendable () throws(ColdframeError) -> Void)? {
        guard way == .precopy else { return nil }
        let image = stateNode.block.direct
        return { () throws(ColdframeError) in try image.flush() }
    }

    private func beginCapture() async throws -> any GuestCapture {
        do {
            if way == .paused, let stateDirectory = context.stateDirectory,
                let saver = guest as? any StoppedStateSaving,
                case .stopped = try await guest.runState()
            {
                return try await StoppedCapture.begin(saver, graph: context.graph, stateDirectory: stateDirectory)
            }
            return try await guest.beginCapture(way: way)
        } catch {
            throw CaptureRefusal(cause: ColdframeError(wrapping: error))
        }
    }

    /// Cuts the disks at the guest's instant, takes the state to its end, and attaches it.
    func run(_ control: any JobControl) async throws -> SaveResult {
        guard let capture, let stream, let writer else {
            throw ColdframeError(.invalidArgument, "The capture has not begun")
        }
        control.onCancel { [weak self] in self?.cancel() }
        let reporting = Task { await reportProgress(control) }
        defer { reporting.cancel() }
        // An image that takes no more ends the reading, and QEMU would wait for a reader for ever.
        let watching = Task {
            if case .failure = await stream.result() { await abandonCapture() }
        }
        defer { watching.cancel() }
        do {
            try await syncingAhead { try await capture.stopping() }
            stream.standStill()
            try await capture.stopped()
            try FaultPoint.saveHeld.pass()
            try await cutDisks { capture.release() }
            Task {
                await capture.goneOn()
                stream.goOn()
            }
            let snapshots = steps.compactMap(\.snapshot)
            try FaultPoint.saveStream.pass()
            try await context.record(.cut, plan.intent(with: steps))
            let state = try await stream.result().get()
            // The stream is at its end: there is nothing to give up any more, only QEMU's word to wait for.
            control.onCancel(nil)
            _ = await syncing?.result
            let result = try await capture.finish()
            try await control.checkpoint()
            try FaultPoint.saveAttach.pass()
            let clock = await BlockingPool.shared.run { [guest] in guest.clockNanoseconds(inStateTail: stream.tail) }
            try await attach(state, to: snapshots, writer: writer, guestClockNanoseconds: clock ?? 0)
            return SaveResult(
                pauseNanoseconds: result.pauseNanoseconds, stateByteCount: state.byteCount, way: way.rawValue)
        } catch {
            control.onCancel(nil)
            if control.isCancelled {
                try await goBack(because: ColdframeError(.cancelled, "Operation canceled"))
            } else if case .failure(let failure) = stream.resultSoFar {
                // What the capture says is only what follows from it.
                try await goBack(because: failure)
            } else {
                try await goBack(because: error)
            }
        }
    }

    /// The set is whole.
    func commit() async {
        await transaction?.commit()
    }

    /// Undoes an attempt whose state was attached but whose set could not be committed.
    func undo(because cause: any Error) async throws -> Never {
        writer = nil
        try await goBack(because: cause)
    }

    // MARK: The cut

    /// Flushes the disks again and again while `body` waits for the guest to stop, so that the flushes inside the pause
    /// find little left to write.
    private func syncingAhead(_ body: () async throws -> Void) async throws {
        let images = devices.nodes.map(\.block.direct)
        let syncing = Task {
            while !Task.isCancelled {
                for image in images where !Task.isCancelled {
                    // A flush that fails here fails again for the guest, or for the cut, which say so.
                    try? await blocking { () throws(ColdframeError) in try image.flush() }
                }
                try await Task.sleep(nanoseconds: Self.syncAheadNanoseconds)
            }
        }
        self.syncing = syncing
        defer { syncing.cancel() }
        try await body()
    }

    /// Cuts all disks while the barrier is held. A request that comes meanwhile belongs before the guest's instant, so
    /// the cut is dropped and made again. `release` is called while the gates are still closed, so that no request slips in
    /// between the last look and the guest's going on.
    private func cutDisks(release: () -> Void) async throws {
        let deadline = SystemClock.monotonicNanoseconds() + context.holdLimitNanoseconds
        var idFloor: UInt64 = 0
        while true {
            try await waitUntilQuiet(deadline)
            let request = plan.request(idFloor: idFloor)
            let steps = devices.nodes.map {
                InternalSnapshotStep(node: $0, request: request, faultPoint: .saveCut)
            }
            let transaction = Transaction(steps, with: companions, graph: context.graph)
            try await transaction.drain(deadlineNanoseconds: deadline)
            let arrivals = transaction.arrivals
            self.steps = steps
            do {
                try await transaction.cut(concurrently: true)
            } catch {
                transaction.letGo()
                throw error
            }
            self.transaction = transaction
            let isLate = SystemClock.monotonicNanoseconds() > deadline
            if !isLate, transaction.arrivals == arrivals {
                release()
                transaction.letGo()
                return
            }
            transaction.letGo()
            guard !isLate else {
                // The guest may have gone on by itself: what was cut after that is of no moment.
                throw ColdframeError(.timedOut, "The disks were not cut while the guest was held at its barrier")
            }
            idFloor = steps.compactMap { $0.snapshot.flatMap { UInt64($0.id) } }.max() ?? idFloor
            try await transaction.abort()
            self.transaction = nil
        }
    }

    private static let quietNanoseconds: UInt64 = 300_000

    /// Suspends until no request has been at any of the disks for a moment: QEMU starts what it had parked during its drain
    /// only at the drain's end. One that comes later still is noticed, and costs a second cut.
    private func waitUntilQuiet(_ deadline: UInt64) async throws {
        // Looked at, not begun.
        let gates = GraphDrain(devices.nodes)
        func reading() -> UInt64? { gates.busyNodeName == nil ? gates.arrivals : nil }
        while true {
            let before = reading()
            try await Task.sleep(nanoseconds: Self.quietNanoseconds)
            if let before, reading() == before { return }
            if SystemClock.monotonicNanoseconds() > deadline {
                let busy = gates.busyNodeName ?? devices.nodes[0].name
                throw ColdframeError(
                    .timedOut, "Requests on node '\(busy)' did not end while the guest was held at its barrier")
            }
        }
    }

    // MARK: The state

    private func attach(
        _ state: SetRecord.State, to snapshots: [SnapshotInfo], writer: any VMStateWriter,
        guestClockNanoseconds: UInt64
    ) async throws {
        guard let index = devices.nodes.firstIndex(where: { $0 === stateNode }), snapshots.indices.contains(index)
        else {
            throw ColdframeError(.io, "The snapshot on node '\(stateNode.name)' is missing")
        }
        let annotation = plan.record(state: state).bytes
        let id = snapshots[index].id
        _ = try await blocking { () throws(ColdframeError) in
            try writer.attach(toSnapshot: id, annotation: annotation, guestClockNanoseconds: guestClockNanoseconds)
        }
        self.writer = nil
    }

    private func reportProgress(_ control: any JobControl) async {
        while !Task.isCancelled {
            let received = stream?.receivedByteCount ?? 0
            let remaining = await capture?.progress().map { $0.total > $0.current ? $0.total - $0.current : 0 }
            if Task.isCancelled { return }
            control.setProgress(current: received, total: received + (remaining ?? 0))
            try? await Task.sleep(nanoseconds: 100_000_000)
        }
    }

    // MARK: The way back

    /// Makes `run` fail at whatever it waits for.
    private func cancel() {
        Task { await abandonCapture() }
    }

    /// Stops the reader, then gives the capture up. Whoever comes second waits for the same end.
    private func abandonCapture() async {
        let task =
            abandoning
            ?? Task {
                stream?.stop()
                _ = await stream?.result()
                await capture?.abandon()
            }
        abandoning = task
        await task.value
    }

    private func goBack(because cause: any Error) async throws -> Never {
        await abandonCapture()
        _ = await syncing?.result
        var left: [String] = []
        if let writer {
            do {
                try await blocking { () throws(ColdframeError) in try writer.abandon() }
            } catch {
                left.append(ColdframeError(wrapping: error).message)
            }
        }
        do {
            try await transaction?.abort()
        } catch {
            left.append(ColdframeError(wrapping: error).message)
        }
        if let refusal = cause as? CaptureRefusal, left.isEmpty { throw refusal }
        let cause = (cause as? CaptureRefusal)?.cause ?? ColdframeError(wrapping: cause)
        guard left.isEmpty else {
            throw ColdframeError(
                .io, "\(cause.message); going back failed too: \(left.joined(separator: "; "))", errno: cause.errno)
        }
        throw cause
    }
}

/// The guest did not begin a capture, and is as before.
struct CaptureRefusal: Error {
    let cause: ColdframeError
}

/// What a save came to.
struct SaveResult: Sendable {
    var pauseNanoseconds: UInt64?
    var stateByteCount: UInt64
    var way: String
}
