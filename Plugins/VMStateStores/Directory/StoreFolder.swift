import ColdframeKit
import LinuxSystem

/// The folder of a store, held by one agent.
///
/// A small file in it says that it is a store, gives it an identity and holds the lock. A folder with other people's files in it
/// is not taken: a typo in the configuration should be heard.
final class StoreFolder: Sendable {
    static let markerName = ".coldframe-store"
    private static let markerHead = "coldframe vmstate store 1\n"

    let path: String
    /// A UUID.
    let identity: String
    private let marker: Descriptor

    init(path given: String) throws(ColdframeError) {
        let markerPath: String
        do {
            let status = try Files.status(given, followLinks: false)
            guard status.isDirectory else {
                throw ColdframeError(
                    .invalidArgument, "'\(given)' is no folder: make one for the store, not a link to one")
            }
            guard status.permissions & 0o002 == 0 else {
                throw ColdframeError(
                    .permission, "Anybody may write to '\(given)': a store holds memory of guests; chmod o-w it")
            }
            path = try Files.canonicalPath(given)
            markerPath = "\(path)/\(Self.markerName)"
            try Self.prepare(path, markerPath)
            marker = try Descriptor.open(markerPath, [.readWrite, .noFollow, .nonBlocking])
            identity = try Self.lock(marker, markerPath, path)
        } catch { throw Self.error(error, "Could not open the store '\(given)'") }
    }

    func close() { marker.close() }

    /// Makes the marker of a new store.
    private static func prepare(_ path: String, _ markerPath: String) throws {
        let names = try Files.listDirectory(path)
        // What a crash in the middle of this left.
        for name in names where name.hasPrefix(markerName + ".") { try Files.unlink("\(path)/\(name)") }
        guard !names.contains(markerName) else { return }
        if let stranger = names.first(where: { !$0.hasPrefix(markerName + ".") }) {
            throw ColdframeError(
                .invalidArgument,
                "'\(path)' is not empty and no store (it has '\(stranger)'): give a store a folder of its own")
        }
        try Files.replaceAtomically(markerPath, contents: Array((markerHead + UUIDText.generate() + "\n").utf8))
    }

    /// Takes the lock and returns the store's identity.
    private static func lock(_ marker: Descriptor, _ markerPath: String, _ path: String) throws -> String {
        let status = try marker.status()
        guard status.isRegularFile else {
            throw ColdframeError(.corrupt, "'\(markerPath)' is no regular file: the folder is no store")
        }
        do { try marker.setOFDLock(.write, offset: 0, byteCount: 1) } catch {
            throw ColdframeError(.busy, "'\(path)' is in use by another agent")
        }
        // Two that made a new store at once have each a marker: the one that is there counts.
        guard try Files.status(markerPath, followLinks: false).inode == status.inode else {
            throw ColdframeError(.busy, "'\(path)' is being made a store by another agent")
        }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = try bytes.withMutableBytes { (buffer) throws(SystemError) in
            try marker.preadFull(into: buffer, at: 0)
        }
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        let identity = text.dropFirst(markerHead.count).dropLast()
        guard text.hasPrefix(markerHead), VMStateLabel.isSetID(String(identity)) else {
            throw ColdframeError(
                .corrupt,
                "'\(markerPath)' is not what a store has there: it is damaged, or a later version made it")
        }
        return String(identity)
    }

    static func error(_ error: any Error, _ context: String) -> ColdframeError {
        switch error {
        case let error as ColdframeError: error
        case let error as SystemError: ColdframeError(.io, "\(context): \(error)", errno: error.errno)
        default: ColdframeError(wrapping: error)
        }
    }
}
