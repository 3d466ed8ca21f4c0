import ColdframeKit
import LinuxSystem
import QAPI

/// The module of the vpc format (VHD).
public enum VpcFormatModule {
    public static var module: Module {
        Module(name: "Formats/Vpc", schema: GeneratedSchema.fragment, blockDrivers: [VpcFactory()])
    }
}

/// Opens vpc images for the graph.
struct VpcFactory: BlockDriverFactory {
    let driverName = "vpc"
    let isFormat = true

    /// An image of fixed size begins with the disk, and is not recognised: a guest could write itself such a format.
    func recognises(head: [UInt8]) -> Bool { head.starts(with: VpcFooter.cookie) }

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsVpc = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .image)
        try context.refuseWriting(by: driverName, to: file.driver.displayFilename)
        return try await BlockingPool.shared.run { () throws(ColdframeError) in VpcDriver(try VpcImage(file)) }
    }
}
