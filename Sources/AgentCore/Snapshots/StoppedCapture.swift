import ColdframeKit
import LinuxSystem
import QMPWire

/// The capture of a guest that its user has stopped.
///
/// A migration would leave it in a state in which QEMU refuses the next one. So QEMU writes the state into a small image,
/// as it does for its own `snapshot-save`, and what is read from there looks like any other stream.
@AgentActor
final class StoppedCapture: GuestCapture {
    nonisolated let stream: Descriptor
    private let sink: Descriptor
    private let guest: any StoppedStateSaving
    private let graph: Graph
    private let imagePath: String
    private var image: GraphNode?
    private var feeding: Task<Void, any Error>?
    private var isEnded = false

    private static let tag = "state"

    /// Takes the state; the guest is held from here on.
    static func begin(
        _ guest: any StoppedStateSaving, graph: Graph, stateDirectory: String
    ) async throws -> StoppedCapture {
        let folder = try await blocking { () throws(ColdframeError) in
            try AgentDirectories.make(stateDirectory + "/load")
        }
        let capture = try StoppedCapture(guest, graph, imagePath: "\(folder)/\(UUIDText.generate()).qcow2")
        guest.setHeld(true)
        do {
            try await StateImage.makeEmpty(at: capture.imagePath, graph: graph)
            try await guest.saveState(imagePath: capture.imagePath, tag: tag)
            capture.image = try await StateImage.open(capture.imagePath, graph: graph)
            return capture
        } catch {
            await capture.end()
            throw error
        }
    }

    private init(_ guest: any StoppedStateSaving, _ graph: Graph, imagePath: String) throws {
        self.guest = guest
        self.graph = graph
        self.imagePath = imagePath
        (stream, sink) = try UnixSocket.pair()
    }

    func stopped() async throws {}

    func release() {
        guard feeding == nil, let image else { return }
        let sink = sink
        feeding = Task {
            defer { sink.close() }
            guard let bearer = image.block.driver as? any VMStateBearing, let snapshot = bearer.snapshots.first else {
                throw ColdframeError(.peer, "QEMU has put no state into '\(imagePath)'")
            }
            try await blocking { () throws(ColdframeError) in
                let state = try bearer.openVMState(ofSnapshot: snapshot.id)
                try StateReading.forEachChunk(of: state, byteCount: 4 << 20) { chunk, _ throws(ColdframeError) in
                    do throws(SystemError) {
                        try sink.writeAll(chunk)
                    } catch {
                        throw ColdframeError(error, "Could not hand the guest's state on")
                    }
                }
            }
        }
    }

    func progress() async -> (current: UInt64, total: UInt64)? { nil }

    func finish() async throws -> CaptureResult {
        let result = await feeding?.result
        await end()
        if case .failure(let error) = result { throw error }
        return CaptureResult(pauseNanoseconds: nil)
    }

    func abandon() async { await end() }

    private func end() async {
        guard !isEnded else { return }
        isEnded = true
        // Whoever still writes or reads finds the end.
        try? sink.shutdown(.both)
        _ = await feeding?.result
        stream.close()
        if let image {
            // A file that is thrown away has nothing to lose in its close.
            try? await graph.close(image)
        }
        await StateImage.remove(imagePath)
        guest.setHeld(false)
    }
}
