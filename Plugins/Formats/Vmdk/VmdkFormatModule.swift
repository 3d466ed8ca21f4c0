import ColdframeKit
import LinuxSystem
import QAPI

/// The module of the vmdk format.
public enum VmdkFormatModule {
    public static var module: Module {
        Module(name: "Formats/Vmdk", schema: GeneratedSchema.fragment, blockDrivers: [VmdkFactory()])
    }
}

/// Opens vmdk images for the graph.
struct VmdkFactory: BlockDriverFactory {
    let driverName = "vmdk"
    let isFormat = true

    /// Layouts that are not read are recognised as well: they are refused in words, not taken for raw disks.
    func recognises(head: [UInt8]) -> Bool {
        head.starts(with: VmdkHeader.magic) || VmdkHeader.foreignBeginnings.contains { head.starts(with: $0.utf8) }
    }

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsVmdk = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .image)
        try context.refuseWriting(by: driverName, to: file.driver.displayFilename)
        return try await BlockingPool.shared.run { () throws(ColdframeError) in VmdkDriver(try VmdkImage(file)) }
    }
}
