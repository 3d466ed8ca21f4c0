import ColdframeKit
import FileProtocol
import LinuxSystem
import QAPI
import QMPWire
import Qcow2Format

/// Members of the driver `fake`. Those of `file` and `qcow2`, which the core itself names, are the real ones, also where a fake
/// stands in for the driver: the table of branches is one for all tests of a process.
struct FakeBranch: QAPIObjectValue, Equatable {
    var filename: String?
    var file: BlockdevRef?
    var backing: BlockdevRef?

    init(filename: String? = nil, file: BlockdevRef? = nil, backing: BlockdevRef? = nil) {
        self.filename = filename
        self.file = file
        self.backing = backing
    }

    init(members input: inout QAPIObjectInput) throws(QMPError) {
        filename = try input.optional("filename")
        file = try input.optional("file")
        backing = try input.optional("backing")
    }

    func write(to object: inout JSONObject) {
        if let filename { object["filename"] = .string(filename) }
    }

    /// The drivers that tests of the core name are known to the decoders.
    static let install: Void = {
        let branches = ["BlockdevOptions", "BlockdevCreateOptions"].map {
            SchemaFragment.Branch(union: $0, value: "fake", typeName: "FakeBranch", type: FakeBranch.self)
        }
        let fake = SchemaFragment(
            name: "fakes", openUnions: [], openValues: [], branches: branches, commands: [], events: [],
            introspection: "[]")
        BranchTable.install([fake, FileProtocolModule.module.schema, Qcow2FormatModule.module.schema])
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
        if let branch = options.branch as? BlockdevOptionsQcow2 {
            _ = try await context.child("file", branch.file, role: .image)
        }
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
        if let branch = options.branch as? BlockdevCreateOptionsQcow2 { _ = try await context.target(branch.file) }
    }
}
