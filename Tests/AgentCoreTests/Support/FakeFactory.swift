import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// Members that any of the fake drivers takes.
struct FakeBranch: QAPIObjectValue, Equatable {
    var filename: String?
    var file: BlockdevRef?
    var backing: BlockdevRef?
    var size: UInt64?

    init(filename: String? = nil, file: BlockdevRef? = nil, backing: BlockdevRef? = nil) {
        self.filename = filename
        self.file = file
        self.backing = backing
    }

    init(members input: inout QAPIObjectInput) throws(QMPError) {
        filename = try input.optional("filename")
        file = try input.optional("file")
        backing = try input.optional("backing")
        size = try input.optionalByteCount("size")
    }

    func write(to object: inout JSONObject) {
        if let filename { object["filename"] = .string(filename) }
    }

    /// The fake drivers are known to the decoders: as QEMU's names where the core itself uses them.
    static let install: Void = {
        let branches = ["fake", "file", "qcow2"].flatMap { driver in
            ["BlockdevOptions", "BlockdevCreateOptions"].map {
                SchemaFragment.Branch(union: $0, value: driver, typeName: "FakeBranch", type: FakeBranch.self)
            }
        }
        BranchTable.install([
            SchemaFragment(
                name: "fakes", openUnions: [], openValues: [], branches: branches, commands: [], events: [],
                introspection: "[]")
        ])
    }()
}

/// Opens disks that the test has made, or new ones, and remembers them by node name.
final class FakeFactory: BlockDriverFactory {
    let driverName: String
    var isFormat: Bool { driverName != "file" }
    private let disks = Locked<[String: FakeDisk]>([:])
    /// Called while a node is being opened, after its children are.
    private let whileOpening: @Sendable @AgentActor (String) async throws -> Void

    init(
        _ driverName: String = "fake",
        whileOpening: @escaping @Sendable @AgentActor (String) async throws -> Void = { _ in }
    ) {
        self.driverName = driverName
        self.whileOpening = whileOpening
    }

    func put(_ disk: FakeDisk, as name: String) { disks.withLock { $0[name] = disk } }
    func disk(_ name: String) -> FakeDisk? { disks.withLock { $0[name] } }

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        if let branch = options.branch as? FakeBranch {
            if let file = branch.file { _ = try await context.child("file", file, role: .image) }
            if let backing = branch.backing { _ = try await context.child("backing", backing, role: .backing) }
        }
        try await whileOpening(context.nodeName)
        let name = context.nodeName
        let isReadOnly = context.isReadOnly
        return disks.withLock { disks in
            if let disk = disks[name], !disk.now.isClosed { return disk }
            let disk = FakeDisk(name, driver: driverName, isReadOnly: isReadOnly)
            disks[name] = disk
            return disk
        }
    }

    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        if let file = (options.branch as? FakeBranch)?.file { _ = try await context.target(file) }
    }
}
