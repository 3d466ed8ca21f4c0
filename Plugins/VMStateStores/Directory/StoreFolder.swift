import ColdframeKit
import LinuxSystem

/// The folder of a store, held by one agent.
///
/// A small file in it says that it is a store, gives it an identity and holds the lock. A folder with other people's files in it
/// is not taken: a typo in the configuration should be heard. It stays the folder that was opened, whatever becomes of its name.
final class StoreFolder: Sendable {
    static let markerName = ".coldframe-store"
    private static let markerHead = "coldframe vmstate store 1\n"

    /// Where it was when it was opened: for texts.
    var path: String { directory.path }
    let directory: Directory
    /// A UUID.
    let identity: String
    private let marker: Descriptor

    init(path given: String) throws(ColdframeError) {
        do {
            let opened = try Self.open(given)
            try Self.prepare(opened)
            directory = opened
            marker = try opened.open(Self.markerName, [.readWrite, .nonBlocking])
            identity = try Self.lock(marker, opened)
        } catch { throw Self.error(error, "Could not open the store '\(given)'") }
    }

    /// Gives the lock up. What is still being written knows its folder.
    func close() { marker.close() }

    private static func open(_ given: String) throws -> Directory {
        let noFolder = ColdframeError(
            .invalidArgument, "'\(given)' is no folder: make one for the store, not a link to one")
        guard try Files.status(given, followLinks: false).isDirectory else { throw noFolder }
        let directory = try Directory(try Files.canonicalPath(given), followLinks: false)
        guard try directory.status().permissions & 0o002 == 0 else {
            throw ColdframeError(
                .permission, "Anybody may write to '\(given)': a store holds memory of guests; chmod o-w it")
        }
        return directory
    }

    /// Makes the marker of a new store.
    private static func prepare(_ directory: Directory) throws {
        let names = try directory.names()
        // What a crash in the middle of this left.
        for name in names where name.hasPrefix(markerName + ".") { try directory.unlink(name) }
        guard !names.contains(markerName) else { return }
        if let stranger = names.first(where: { !$0.hasPrefix(markerName + ".") }) {
            throw ColdframeError(
                .invalidArgument,
                "'\(directory.path)' is not empty and no store (it has '\(stranger)'): give a store a folder of its own"
            )
        }
        try directory.replaceAtomically(
            markerName, contents: Array((markerHead + UUIDText.generate() + "\n").utf8))
    }

    /// Takes the lock and returns the store's identity.
    private static func lock(_ marker: Descriptor, _ directory: Directory) throws -> String {
        let (path, markerPath) = (directory.path, "\(directory.path)/\(markerName)")
        let status = try marker.status()
        guard status.isRegularFile else {
            throw ColdframeError(.corrupt, "'\(markerPath)' is no regular file: the folder is no store")
        }
        do { try marker.setOFDLock(.write, offset: 0, byteCount: 1) } catch {
            throw ColdframeError(.busy, "'\(path)' is in use by another agent")
        }
        // Two that made a new store at once have each a marker: the one that is there counts.
        guard try directory.status(of: markerName).isSameFile(as: status) else {
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
