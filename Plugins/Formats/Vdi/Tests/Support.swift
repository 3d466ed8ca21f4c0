import ColdframeKit
import ConformanceKit
import LinuxSystem

@testable import VdiFormat

extension DiskSubject {
    /// Images with small blocks, so that small disks have many.
    static let vdi = DiskSubject(
        name: "vdi", files: ["file"],
        create: { nodes, byteCount in
            try VdiCreation(diskByteCount: byteCount, isFixed: false, blockByteCount: 4096).run(into: nodes["file"]!)
        },
        open: { nodes, isReadOnly in try VdiDriver(VdiImage(nodes["file"]!), isReadOnly: isReadOnly) })
}

func openImage(_ path: String, isReadOnly: Bool = true) throws -> VdiDriver {
    let node = BlockNode(name: "file", driver: try PlainFile(path: path, isReadOnly: isReadOnly))
    return try VdiDriver(VdiImage(node), isReadOnly: isReadOnly)
}

/// An image in memory with some of its bytes replaced.
func damagedImage(_ bytes: [UInt8], at offset: Int, _ patch: [UInt8]) -> BlockNode {
    var bytes = bytes
    bytes.replaceSubrange(offset..<offset + patch.count, with: patch)
    let file = MemoryFile()
    file.replace(with: bytes)
    return BlockNode(name: "file", driver: file)
}
