import CChecksum
import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// A small qcow2 file that holds nothing but one snapshot with the state of a machine: what a running QEMU can load.
///
/// It is made beside the agent's state, under a name of its own, and removed when the load is over.
@AgentActor
struct StateImage {
    let path: String
    /// Length and CRC32C of the state as it was read; compared with what the set says before anything is touched.
    let state: SetRecord.State

    /// QEMU wants a disk under the snapshot; its size means nothing.
    private static let diskByteCount = 1 << 20
    private nonisolated static let copyByteCount = 4 << 20

    /// Copies `source` into a new image at `path` whose snapshot has the given tag.
    static func make(
        at path: String, tag: String, from source: any VMStateReader, graph: Graph, control: any JobControl
    ) async throws -> StateImage {
        await remove(path)
        do {
            try await makeEmpty(at: path, graph: graph)
            let node = try await open(path, graph: graph)
            let result: Result<SetRecord.State, any Error>
            do {
                result = .success(try await fill(node, tag: tag, from: source, control: control))
            } catch {
                result = .failure(error)
            }
            try await graph.close(node)
            return StateImage(path: path, state: try result.get())
        } catch {
            await remove(path)
            throw error
        }
    }

    func remove() async { await Self.remove(path) }

    static func remove(_ path: String) async {
        // A file that stays costs space only; the next load replaces it.
        await BlockingPool.shared.run { try? Files.unlink(path) }
    }

    /// Opens a state image as a node that nobody else sees the use of; the caller closes it.
    static func open(_ path: String, graph: Graph) async throws -> GraphNode {
        let file: JSONValue = ["driver": "file", "filename": .string(path)]
        let options = try BlockdevOptions(QAPIInput(["driver": "qcow2", "file": file]))
        return try await graph.open(options, inherited: InheritedOptions(), isMonitorOwned: false, isScratch: true)
    }

    /// Makes an image without a snapshot.
    static func makeEmpty(at path: String, graph: Graph) async throws {
        let creation = ImageCreation(graph: graph) { _ in }
        let file: JSONValue = ["driver": "file", "filename": .string(path)]
        let steps: [JSONValue] = [
            ["driver": "file", "filename": .string(path), "size": 0],
            ["driver": "qcow2", "file": file, "size": .integer(Int64(diskByteCount))],
        ]
        for step in steps {
            let options = try BlockdevCreateOptions(QAPIInput(step))
            try await creation.run(options)
        }
    }

    private static func fill(
        _ node: GraphNode, tag: String, from source: any VMStateReader, control: any JobControl
    ) async throws -> SetRecord.State {
        guard let bearer = node.block.driver as? any VMStateBearing else {
            throw ColdframeError(.unsupported, "Images of format 'qcow2' have no room for the state of a machine")
        }
        let request = SnapshotRequest(name: tag, at: SystemClock.realtime())
        return try await blocking { () throws(ColdframeError) in
            let snapshot = try bearer.createSnapshot(request)
            let writer = try bearer.beginVMState()
            do throws(ColdframeError) {
                let checksum = try copy(source, to: writer, control)
                _ = try writer.attach(toSnapshot: snapshot.id, annotation: [], guestClockNanoseconds: 0)
                return SetRecord.State(byteCount: source.byteCount, checksum: checksum)
            } catch {
                // The whole file is thrown away.
                try? writer.abandon()
                throw error
            }
        }
    }

    private nonisolated static func copy(
        _ source: any VMStateReader, to writer: any VMStateWriter, _ control: any JobControl
    ) throws(ColdframeError) -> UInt32 {
        var checksum: UInt32 = 0
        try StateReading.forEachChunk(of: source, byteCount: copyByteCount) { chunk, offset throws(ColdframeError) in
            if control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
            try writer.append(chunk)
            checksum = cf_crc32c(checksum, chunk.baseAddress, chunk.count)
            control.setProgress(current: offset + UInt64(chunk.count), total: source.byteCount)
        }
        return checksum
    }
}

/// Reads a stored state from end to end.
enum StateReading {
    static func forEachChunk(
        of source: any VMStateReader, byteCount: Int,
        _ body: (UnsafeRawBufferPointer, UInt64) throws(ColdframeError) -> Void
    ) throws(ColdframeError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        var offset: UInt64 = 0
        while offset < source.byteCount {
            let count = Int(min(UInt64(byteCount), source.byteCount - offset))
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
            try source.read(into: piece, at: offset)
            try body(UnsafeRawBufferPointer(piece), offset)
            offset += UInt64(count)
        }
    }

    /// The state's length and CRC32C.
    static func measure(_ source: any VMStateReader) throws(ColdframeError) -> SetRecord.State {
        var checksum: UInt32 = 0
        try forEachChunk(of: source, byteCount: 4 << 20) { chunk, _ throws(ColdframeError) in
            checksum = cf_crc32c(checksum, chunk.baseAddress, chunk.count)
        }
        return SetRecord.State(byteCount: source.byteCount, checksum: checksum)
    }
}
