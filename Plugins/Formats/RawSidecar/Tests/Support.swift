import ColdframeKit
import ConformanceKit

@testable import RawSidecarFormat

extension DiskSubject {
    /// Raw images with sidecars of small clusters, so that short tests have many.
    static func rawSidecar(clusterByteCount: UInt64 = 16384) -> DiskSubject {
        DiskSubject(
            name: "raw-sidecar", files: ["disk.raw", "disk.raw.sidecar"],
            create: { nodes, byteCount in
                try SidecarCreation(clusterByteCount: clusterByteCount).run(
                    raw: nodes["disk.raw"]!, sidecar: nodes["disk.raw.sidecar"]!, rawByteCount: byteCount)
            },
            open: { nodes, isReadOnly in try openImage(nodes, isReadOnly: isReadOnly) })
    }
}

func openImage(
    _ nodes: [String: BlockNode], isReadOnly: Bool = false, allowsSuspect: Bool = false
) throws -> RawSidecarDriver {
    var options = RawSidecarDriver.Options()
    options.isReadOnly = isReadOnly
    options.allowsSuspect = allowsSuspect
    return try RawSidecarDriver(raw: nodes["disk.raw"]!, sidecar: nodes["disk.raw.sidecar"]!, options: options)
}

extension SubjectImage {
    /// An image with a sidecar, and its driver.
    static func opened(
        byteCount: UInt64, clusterByteCount: UInt64 = 16384
    ) throws -> (image: SubjectImage, disk: RawSidecarDriver) {
        let image = try SubjectImage(.rawSidecar(clusterByteCount: clusterByteCount), byteCount: byteCount)
        return (image, try openImage(try image.nodes()))
    }
}

func request(_ name: String) -> SnapshotRequest {
    SnapshotRequest(name: name, dateSeconds: 1, dateNanoseconds: 2)
}
