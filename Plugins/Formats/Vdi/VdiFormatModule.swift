import ColdframeKit
import LinuxSystem
import QAPI

/// The module of the vdi format.
public enum VdiFormatModule {
    public static var module: Module {
        Module(name: "Formats/Vdi", schema: GeneratedSchema.fragment, blockDrivers: [VdiFactory()])
    }
}

/// Opens and makes vdi images for the graph.
struct VdiFactory: BlockDriverFactory {
    let driverName = "vdi"
    let isFormat = true

    func recognises(head: [UInt8]) -> Bool {
        head.count == VdiHeader.byteCount && head.littleEndian(UInt32.self, at: 64) == VdiHeader.signature
    }

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsVdi = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .image)
        guard context.isReadOnly || context.autoReadOnly || !file.isReadOnly else {
            throw ColdframeError(.permission, "Block node '\(file.name)' is read-only")
        }
        let isReadOnly = context.isReadOnly || file.isReadOnly
        return try await BlockingPool.shared.run { () throws(ColdframeError) in
            let image = try VdiImage(file)
            return try VdiDriver(image, isReadOnly: isReadOnly)
        }
    }

    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        let branch: BlockdevCreateOptionsVdi = try own(options.branch)
        let isFixed: Bool
        switch branch.preallocation {
        case nil, .off: isFixed = false
        case .metadata: isFixed = true
        default: throw ColdframeError(.unsupported, "Preallocation mode not supported for vdi")
        }
        let creation = try VdiCreation(diskByteCount: branch.size, isFixed: isFixed)
        let target = try await context.target(branch.file)
        try await BlockingPool.shared.run { () throws(ColdframeError) in try creation.run(into: target) }
        context.advance(byteCount: branch.size)
    }
}
