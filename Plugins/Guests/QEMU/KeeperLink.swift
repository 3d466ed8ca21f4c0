import ColdframeKit
import KeeperWire
import LinuxSystem

/// The agent's end of the conversation with its guest's keeper.
///
/// Requests are answered in their order; one reader thread takes the answers. Any thread and task may ask.
final class KeeperLink: Sendable {
    typealias ExitHandler = @Sendable (GuestExit) -> Void

    private let socket: Descriptor
    private let state = Locked(State())
    private let sending = PlainMutex()
    private let onExit: ExitHandler

    private struct State {
        var waiters: [CheckedContinuation<Result<KeeperReply, ColdframeError>, Never>] = []
        var captureCount: UInt64 = 0
        var isClosed = false
    }

    init(socket: Descriptor, onExit: @escaping ExitHandler) throws {
        self.socket = socket
        self.onExit = onExit
        _ = try SystemThread.start(name: "cf-keeper") { [self] in readToEnd() }
    }

    // MARK: Requests

    /// Starts the guest; returns its process id.
    func spawn(_ order: SpawnOrder) async throws(ColdframeError) -> Int32 {
        switch try await ask(.spawn(order)) {
        case .spawned(let processID): return processID
        case .failed(let text): throw ColdframeError(.io, "The guest could not be started: \(text)")
        default: throw Self.misunderstanding
        }
    }

    /// Makes the keeper look after a guest that it has not started.
    func adopt(processID: Int32, identity: String) async throws(ColdframeError) {
        let pidfd: Descriptor
        do {
            pidfd = try ProcessControl.pidfdOpen(processID)
        } catch {
            throw ColdframeError(error, "The guest's process \(processID) cannot be watched")
        }
        try Self.expectDone(try await ask(.adopt(processID: processID, identity: identity), descriptor: pidfd.raw))
    }

    /// The guest goes on without a keeper.
    func disown() async {
        // One that is gone looks after nobody.
        _ = try? await ask(.disown)
    }

    func status() async throws(ColdframeError) -> KeeperStatus {
        guard case .status(let status) = try await ask(.status) else { throw Self.misunderstanding }
        return status
    }

    /// Gives the keeper a copy of a capture's read end, and what it is to do with it if the agent dies; it holds it when
    /// this returns.
    func hold(_ capture: Descriptor, ending: CaptureEnding) async throws(ColdframeError) -> UInt64 {
        let id = state.withLock { state in
            state.captureCount += 1
            return state.captureCount
        }
        try Self.expectDone(try await ask(.holdCapture(id, ending), descriptor: capture.raw))
        return id
    }

    /// The capture has been read to its end. An error means that the keeper is gone, and its copy with it.
    func release(_ capture: UInt64) async {
        _ = try? await ask(.releaseCapture(capture))
    }

    func signal(_ signal: Int32) async throws(ColdframeError) {
        try Self.expectDone(try await ask(.signalGuest(signal)))
    }

    /// The keeper is gone, or was let go.
    var isClosed: Bool { state.withLock { $0.isClosed } }

    func close() {
        try? socket.shutdown(.both)
    }

    private static func expectDone(_ reply: KeeperReply) throws(ColdframeError) {
        switch reply {
        case .done: return
        case .failed(let text): throw ColdframeError(.peer, "The guest's keeper refused: \(text)")
        default: throw misunderstanding
        }
    }

    private static var misunderstanding: ColdframeError {
        ColdframeError(.peer, "The guest's keeper gave an answer of another kind: is it of the same version?")
    }

    private func ask(
        _ request: KeeperRequest, descriptor: Int32? = nil
    ) async throws(ColdframeError) -> KeeperReply {
        let result = await withCheckedContinuation { continuation in
            BlockingPool.shared.submit { [self] in
                sending.withLock { send(request, descriptor, continuation) }
            }
        }
        return try result.get()
    }

    /// Under the sending lock, so that answers come in the order of the waiters.
    private func send(
        _ request: KeeperRequest, _ descriptor: Int32?,
        _ continuation: CheckedContinuation<Result<KeeperReply, ColdframeError>, Never>
    ) {
        let isClosed = state.withLock { state in
            if !state.isClosed { state.waiters.append(continuation) }
            return state.isClosed
        }
        guard !isClosed else { return continuation.resume(returning: .failure(Self.gone)) }
        do {
            try socket.sendAllWithDescriptors(request.frame, descriptor.map { [$0] } ?? [])
        } catch {
            // The reader sees the end of the connection and answers everybody.
            close()
        }
    }

    private static var gone: ColdframeError { ColdframeError(.peer, "The guest's keeper is gone") }

    // MARK: Answers

    private func readToEnd() {
        var buffer = KeeperFrameBuffer()
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
        defer { scratch.deallocate() }
        while let count = try? socket.read(into: scratch), count > 0 {
            buffer.append(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
            do {
                while let (kind, body) = try buffer.next() { deliver(try KeeperReply(kind: kind, body: body)) }
            } catch {
                break
            }
        }
        let waiters = state.withLock { state in
            state.isClosed = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(returning: .failure(Self.gone)) }
    }

    private func deliver(_ reply: KeeperReply) {
        if case .guestExited(let exit) = reply { return onExit(exit) }
        let waiter = state.withLock { $0.waiters.isEmpty ? nil : $0.waiters.removeFirst() }
        waiter?.resume(returning: .success(reply))
    }
}
