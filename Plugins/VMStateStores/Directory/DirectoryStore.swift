import ColdframeKit
import LinuxSystem

/// States as files of a folder: a name with a dot while it is written, its own name when it is whole.
///
/// Nothing is kept in memory: the folder is the truth, so that a file that a person removes is gone. The folder is the one that was
/// opened, and a writer's file the one that it has made: names may lead elsewhere by then.
final class DirectoryStore: VMStateStore {
    let driverName = "directory"
    var identity: String { folder.identity }

    private static let nameLimit = 65_536
    private let folder: StoreFolder
    /// Begin, commit and discard one at a time.
    private let turn = PlainMutex()

    init(path: String) throws(ColdframeError) { folder = try StoreFolder(path: path) }

    func close() { folder.close() }

    func list() throws(ColdframeError) -> VMStateListing {
        var listing = VMStateListing(states: [], damaged: [])
        for name in try names() where StateName.setID(of: name) != nil {
            do { listing.states.append(try StateFile(name, in: folder.directory).state) } catch {
                // One that was discarded meanwhile is none.
                if error.code != .notFound { listing.damaged.append(error.message) }
            }
        }
        listing.states.sort { $0.label.setID < $1.label.setID }
        return listing
    }

    func begin(_ label: VMStateLabel) throws(ColdframeError) -> any VMStateStoreWriter {
        try label.check()
        turn.lock()
        defer { turn.unlock() }
        guard try condition(of: label.setID) == .absent else {
            throw ColdframeError(
                .alreadyExists, "The store '\(folder.path)' has a state of set \(label.setID) already: discard it first"
            )
        }
        let name = StateName.unfinished(label.setID)
        do {
            return StateWriter(try folder.directory.open(name, [.readWrite, .create, .exclusive]), label, self)
        } catch { throw ColdframeError(error, "Could not begin the state '\(folder.path)/\(name)'") }
    }

    func open(_ setID: String) throws(ColdframeError) -> any StoredVMStateReader {
        guard let name = try wholeName(setID) else {
            throw ColdframeError(.notFound, "The store '\(folder.path)' has no state of set \(setID)")
        }
        return try StateFile(name, in: folder.directory)
    }

    func condition(of setID: String) throws(ColdframeError) -> VMStateCondition {
        try check(setID)
        if let name = try wholeName(setID) { return .whole(try StateFile(name, in: folder.directory).state) }
        return folder.directory.contains(StateName.unfinished(setID)) ? .unfinished : .absent
    }

    func discard(_ setID: String) throws(ColdframeError) {
        try check(setID)
        turn.lock()
        defer { turn.unlock() }
        let wanted = try names().filter { StateName.setID(of: $0) == setID } + [StateName.unfinished(setID)]
        try remove(wanted, setID)
    }

    /// Takes away what a writer has made, committed or not, and nothing else of that name.
    func abandon(_ file: Descriptor, _ label: VMStateLabel) throws(ColdframeError) {
        turn.lock()
        defer { turn.unlock() }
        var names: [String] = []
        for name in [StateName.unfinished(label.setID), StateName.whole(label)] where try holds(file, as: name) {
            names.append(name)
        }
        try remove(names, label.setID)
    }

    /// Gives a state that is on stable storage its own name.
    func finish(_ file: Descriptor, _ label: VMStateLabel) throws(ColdframeError) {
        turn.lock()
        defer { turn.unlock() }
        guard try wholeName(label.setID) == nil else {
            throw ColdframeError(.alreadyExists, "The store '\(folder.path)' has a state of set \(label.setID) already")
        }
        let name = StateName.unfinished(label.setID)
        guard try holds(file, as: name) else {
            throw ColdframeError(
                .notFound,
                "The state of set \(label.setID) was removed from the store '\(folder.path)' while it was written")
        }
        do {
            try folder.directory.rename(from: name, to: StateName.whole(label))
            try folder.directory.synchronize()
        } catch {
            throw ColdframeError(.io, "Could not commit the state of set \(label.setID): \(error)", errno: error.errno)
        }
    }

    /// Whether the file of that name is this one.
    private func holds(_ file: Descriptor, as name: String) throws(ColdframeError) -> Bool {
        do {
            guard folder.directory.contains(name) else { return false }
            return try folder.directory.status(of: name).isSameFile(as: try file.status())
        } catch { throw ColdframeError(error, "Could not look at the state '\(folder.path)/\(name)'") }
    }

    private func remove(_ names: [String], _ setID: String) throws(ColdframeError) {
        do {
            for name in names where folder.directory.contains(name) { try folder.directory.unlink(name) }
            try folder.directory.synchronize()
        } catch {
            throw ColdframeError(.io, "Could not discard the state of set \(setID): \(error)", errno: error.errno)
        }
    }

    private func check(_ setID: String) throws(ColdframeError) {
        guard VMStateLabel.isSetID(setID) else {
            throw ColdframeError(.invalidArgument, "'\(setID)' is no UUID in lower case")
        }
    }

    private func names() throws(ColdframeError) -> [String] {
        let names: [String]
        do { names = try folder.directory.names() } catch {
            throw ColdframeError(error, "Could not list the store '\(folder.path)'")
        }
        guard names.count <= Self.nameLimit else {
            throw ColdframeError(.corrupt, "The store '\(folder.path)' has more than \(Self.nameLimit) files")
        }
        return names
    }

    private func wholeName(_ setID: String) throws(ColdframeError) -> String? {
        let found = try names().filter { StateName.setID(of: $0) == setID }
        guard found.count <= 1 else {
            throw ColdframeError(
                .corrupt,
                "The store '\(folder.path)' has several files of set \(setID): \(found.joined(separator: ", ")); remove "
                    + "those that are copies")
        }
        return found.first
    }
}
