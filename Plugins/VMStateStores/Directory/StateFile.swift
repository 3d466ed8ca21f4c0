import ColdframeKit
import LinuxSystem

/// A state that is whole, open for reading. Its file is looked at before anything of it is believed.
final class StateFile: StoredVMStateReader {
    let state: StoredVMState
    var byteCount: UInt64 { state.byteCount }
    private let file: Descriptor
    private let path: String

    init(_ name: String, in folder: Directory) throws(ColdframeError) {
        path = "\(folder.path)/\(name)"
        do {
            // A pipe would wait for a writer.
            let file = try folder.open(name, [.readOnly, .nonBlocking])
            self.file = file
            let status = try file.status()
            guard status.isRegularFile else { throw ColdframeError(.corrupt, "it is no regular file") }
            var bytes = [UInt8](repeating: 0, count: StateHeader.byteCount)
            let count = try bytes.withMutableBytes { (buffer) throws(SystemError) in
                try file.preadFull(into: buffer, at: 0)
            }
            guard count == bytes.count else { throw ColdframeError(.corrupt, "it was cut short") }
            let state = try StateHeader.state(bytes)
            self.state = state
            let (whole, overflow) = state.byteCount.addingReportingOverflow(UInt64(StateHeader.byteCount))
            guard !overflow, status.byteCount == whole else {
                throw ColdframeError(
                    .corrupt, "it has \(status.byteCount) bytes, and a state of \(state.byteCount) needs another number"
                )
            }
            guard StateName.setID(of: name) == state.label.setID else {
                throw ColdframeError(.corrupt, "it is the state of set \(state.label.setID) under another's name")
            }
        } catch let error as SystemError {
            throw ColdframeError(
                error.errno == Errno.noEntry ? .notFound : .io, "Could not open the state '\(path)': \(error.reason)",
                errno: error.errno)
        } catch { throw ColdframeError(wrapping: error).prefixed("The state '\(path)' cannot be used") }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        guard offset <= byteCount, UInt64(buffer.count) <= byteCount - offset else {
            throw ColdframeError(
                .invalidArgument, "\(buffer.count) bytes at \(offset) lie outside a state of \(byteCount) bytes")
        }
        let count: Int
        do { count = try file.preadFull(into: buffer, at: UInt64(StateHeader.byteCount) + offset) } catch {
            throw ColdframeError(error, "Could not read the state '\(path)'")
        }
        guard count == buffer.count else { throw ColdframeError(.corrupt, "The state '\(path)' was cut short") }
    }
}
