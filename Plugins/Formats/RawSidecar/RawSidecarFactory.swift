import ColdframeKit
import LinuxSystem
import QAPI

/// Opens raw images with their sidecars, and makes sidecars.
public struct RawSidecarFactory: BlockDriverFactory {
    public let driverName = "raw-sidecar"
    public let isFormat = true
    /// What a sidecar's file is called after the raw image's, if nobody says otherwise.
    static let suffix = ".sidecar"

    public init() {}

    @AgentActor
    public func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsRawSidecar = try own(options.branch)
        let raw = try await context.child("file", branch.file, role: .image)
        let creates = branch.createSidecar ?? false && !context.isReadOnly
        let reference: BlockdevRef
        if let named = branch.sidecar {
            reference = named
        } else {
            reference = try await Self.sidecarBeside(raw, creates: creates)
        }
        let sidecar = try await context.child("sidecar", reference, role: .image)
        var settings = RawSidecarDriver.Options()
        settings.isReadOnly = context.isReadOnly || (context.autoReadOnly && (raw.isReadOnly || sidecar.isReadOnly))
        settings.allowsSuspect = branch.allowSuspect ?? false
        settings.passesDiscards = options.discard == .unmap
        for node in [raw, sidecar] where node.isReadOnly && !settings.isReadOnly {
            throw ColdframeError(.permission, "Block node '\(node.name)' is read-only")
        }
        let final = settings
        return try await BlockingPool.shared.run { () throws(ColdframeError) in
            if creates, sidecar.byteCount == 0 { try SidecarCreation().run(raw: raw, sidecar: sidecar) }
            return try RawSidecarDriver(raw: raw, sidecar: sidecar, options: final)
        }
    }

    /// The definition of the file that lies beside the raw image's; makes an empty one if it is wanted and missing.
    @AgentActor
    private static func sidecarBeside(_ raw: BlockNode, creates: Bool) async throws -> BlockdevRef {
        guard let file = raw.driver as? any FileBacked else {
            throw ColdframeError(
                .invalidArgument,
                "Parameter 'sidecar' is missing: node '\(raw.name)' is no file that a sidecar could lie beside")
        }
        let path = file.fileIdentity.path + suffix
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            do throws(SystemError) {
                if creates {
                    _ = try Descriptor.open(path, [.readWrite, .create], mode: 0o644)
                } else {
                    _ = try Files.status(path)
                }
            } catch {
                throw ColdframeError(
                    error.errno == Errno.noEntry ? .notFound : .io,
                    "Could not open sidecar '\(path)': \(error.reason). Open the image with create-sidecar=on if there "
                        + "is to be a new one, or name another with 'sidecar'", errno: error.errno)
            }
        }
        return .definition(
            try BlockdevOptions(QAPIInput(["driver": "file", "filename": .string(path)])))
    }

    @AgentActor
    public func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        let branch: BlockdevCreateOptionsRawSidecar = try own(options.branch)
        let creation = try SidecarCreation(clusterByteCount: branch.clusterSize ?? Limits.defaultClusterByteCount)
        let raw = try await context.target(branch.file)
        let sidecar = try await context.target(branch.sidecar)
        let size = branch.size
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            try creation.run(raw: raw, sidecar: sidecar, rawByteCount: size)
        }
    }
}
