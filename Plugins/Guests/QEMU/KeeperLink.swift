import ColdframeKit
import KeeperWire
import LinuxSystem
import Synchronization

/// The agent's end of the conversation with its guest's keeper.
///
/// Requests are answered in their order; one reader thread takes the answers. Any thread and task may ask.
final class KeeperLink: Sendable {
    typealias ExitHandler = @Sendable (GuestExit) -> Void

    private let socket: Descriptor
    private let state = Mutex(State())
    private let sending = PlainMutex()
    private let onExit: ExitHandler

    private struct State {
        var waiters: [CheckedContinuation<Result<KeeperReply, ColdframeError>, Never>] = []
        var captureCount: UInt64 = 0
        var isClosed = false
    }

    /// Starts a keeper that listens at `socketPath` and connects to it. `onExit` is called on the reader thread when the
    /// guest has ended.
    static func start(
        socketPath: String, errorLogPath: String, onExit: @escaping ExitHandler
    ) async throws(ColdframeError) -> KeeperLink {
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            let program = try keeperPath()
            do {
                let input = try Descriptor.open("/dev/null", .readWrite)
                let log = try Descriptor.open(errorLogPath, [.writeOnly, .create, .truncate])
                let pid = try ProcessControl.spawn(
                    SpawnRequest(
                        path: program, arguments: [socketPath],
                        descriptors: [(input.raw, 0), (input.raw, 1), (log.raw, 2)], workingDirectory: "/"))
                // The keeper itself is a grandchild; this returns as soon as it listens.
                guard try ProcessControl.wait(pid) == .exited(0) else {
                    let words = (try? Files.readAll(errorLogPath, limit: 4096)) ?? []
                    throw ColdframeError(
                        .peer, "The guest's keeper did not start: \(String(decoding: words, as: UTF8.self))")
                }
                return try KeeperLink(socket: try UnixSocket.connect(path: socketPath), onExit: onExit)
            } catch let error as ColdframeError {
                throw error
            } catch {
                throw ColdframeError(wrapping: error).prefixed("Could not start the guest's keeper '\(program)'")
            }
        }
    }

    /// Waits for the keeper of an earlier guest to be gone; one whose guest still runs is an error. Asked before anything
    /// is served to a guest: the earlier one waits for its disks, and must not find them under another's feet.
    static func awaitPredecessor(socketPath: String) async throws(ColdframeError) {
        let deadline = SystemClock.monotonicNanoseconds() + 3_000_000_000
        while Files.exists(socketPath) {
            do {
                let socket = try await BlockingPool.shared.run { () throws(SystemError) in
                    try UnixSocket.connect(path: socketPath)
                }
                let link = try KeeperLink(socket: socket) { _ in }
                defer { link.close() }
                if case .status(let processID, nil) = try await link.ask(.status), processID != 0 {
                    throw ColdframeError(
                        .busy,
                        "A guest of an earlier agent still runs as process \(processID): end it ('kill -9 \(processID)'), "
                            + "then start the guest again")
                }
            } catch let error as SystemError {
                // Nobody listens: the file is what a killed keeper left, and the next one replaces it.
                if error.errno == Errno.connectionRefused || error.errno == Errno.noEntry { return }
                throw ColdframeError(error, "Could not ask the keeper of an earlier guest")
            } catch let error as ColdframeError {
                // One that ends while it is asked is as good as gone.
                if error.code != .peer { throw error }
            } catch {
                throw ColdframeError(wrapping: error)
            }
            guard SystemClock.monotonicNanoseconds() < deadline else {
                throw ColdframeError(.timedOut, "The keeper of an earlier guest does not end: see '\(socketPath)'")
            }
            try? await Task.sleep(nanoseconds: 20_000_000)
        }
    }

    /// Beside the agent's own executable, unless `COLDFRAME_KEEPER` says otherwise.
    private static func keeperPath() throws(ColdframeError) -> String {
        if let path = ProcessControl.environment("COLDFRAME_KEEPER") { return path }
        do {
            let own = try Files.canonicalPath("/proc/self/exe")
            let path = Files.parentDirectory(of: own) + "/coldframe-keeper"
            guard Files.exists(path) else {
                throw ColdframeError(
                    .notFound, "'\(path)' is missing: the agent's executables belong into one folder")
            }
            return path
        } catch {
            throw ColdframeError(wrapping: error)
        }
    }

    private init(socket: Descriptor, onExit: @escaping ExitHandler) throws {
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

    /// Gives the keeper a copy of a capture's read end; it holds it when this returns.
    func hold(_ capture: Descriptor) async throws(ColdframeError) -> UInt64 {
        let id = state.withLock { state in
            state.captureCount += 1
            return state.captureCount
        }
        try Self.expectDone(try await ask(.holdCapture(id), descriptor: capture.raw))
        return id
    }

    /// The capture has been read to its end. An error means that the keeper is gone, and its copy with it.
    func release(_ capture: UInt64) async {
        _ = try? await ask(.releaseCapture(capture))
    }

    func signal(_ signal: Int32) async throws(ColdframeError) {
        try Self.expectDone(try await ask(.signalGuest(signal)))
    }

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
