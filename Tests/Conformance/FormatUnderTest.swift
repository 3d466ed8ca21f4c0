import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

/// One format of the agent, opened and made through its factory as `blockdev-add` and `blockdev-create` do.
struct FormatUnderTest: DriverUnderTest {
    let factory: any BlockDriverFactory
    var name: String { factory.driverName }

    /// All formats of all modules.
    static let all: [FormatUnderTest] = ModulesUnderTest.all.flatMap(\.blockDrivers).filter {
        $0.isFormat && !$0.isFilter
    }.map(FormatUnderTest.init)

    /// What an image has beside `file`, for formats with more than one file.
    private static let companions = ["raw-sidecar": ["sidecar"]]

    var files: [String] { ["file"] + (Self.companions[name] ?? []) }

    private var references: JSONObject {
        var references: JSONObject = ["driver": .string(name)]
        for file in files { references[file] = .string(file) }
        return references
    }

    /// The format as the campaigns of the test kit want it. Not to be used on a thread of the concurrency runtime.
    var subject: DiskSubject {
        DiskSubject(
            name: name, files: files,
            create: { nodes, byteCount in try self.create(nodes, byteCount) },
            open: { nodes, isReadOnly in try self.open(nodes, isReadOnly: isReadOnly) })
    }

    func open(
        _ nodes: [String: BlockNode], isReadOnly: Bool = false, asked: (@Sendable (String) -> Void)? = nil
    ) throws -> any BlockDriver {
        var members = references
        members["discard"] = "unmap"
        let options = try BlockdevOptions(QAPIInput(.object(members)))
        return try waitFor { @AgentActor in
            try await self.factory.open(options, context: StandInGraph(nodes, isReadOnly: isReadOnly, asked: asked))
        }
    }

    /// Through the factory; for a format that makes none, `qemu-img` does, and for one that it does not know either the
    /// file is the disk.
    private func create(_ nodes: [String: BlockNode], _ byteCount: UInt64) throws {
        guard BranchTable.current.type(of: "BlockdevCreateOptions", value: name) != nil else {
            return try createElsewhere(nodes, byteCount)
        }
        var members = references
        members["size"] = .integer(Int64(byteCount))
        let options = try BlockdevCreateOptions(QAPIInput(.object(members)))
        try waitFor { @AgentActor in
            try await self.factory.create(options, context: StandInGraph(nodes, isReadOnly: false, asked: nil))
        }
    }

    private func createElsewhere(_ nodes: [String: BlockNode], _ byteCount: UInt64) throws {
        guard let file = nodes["file"], let resizable = file.driver as? any Resizable else { return }
        let folder = try ToolFolder()
        let path = folder.path("image")
        guard try folder.run("qemu-img", ["create", "-q", "-f", name, path, String(byteCount)]).status == 0 else {
            return try resizable.resize(toByteCount: byteCount)
        }
        let bytes = try Files.readAll(path, limit: 64 << 20)
        try resizable.resize(toByteCount: UInt64(bytes.count))
        try file.driver.writeBytes(bytes, at: 0)
    }
}
