import ColdframeKit
import QAPI

/// A dirty bitmap that clients of an export see. As long as the export lasts, nobody else may change it.
struct ExportedBitmap: Sendable {
    let name: String
    let bitmap: DirtyBitmap

    /// Finds the bitmaps that an export was asked to show; QEMU's texts.
    @AgentActor
    static func find(
        _ references: [BlockDirtyBitmapOrStr], nodeName: String, isWritable: Bool, services: any AgentServices
    ) throws -> [ExportedBitmap] {
        try references.map { reference in
            switch reference {
            case .local(let name):
                let found = try services.bitmap(named: name, node: nodeName, throughBacking: true)
                if !isWritable, !found.node.isReadOnly, found.bitmap.state.isRecording {
                    throw ColdframeError(
                        .invalidArgument, "Enabled bitmap '\(name)' incompatible with readonly export")
                }
                return ExportedBitmap(name: name, bitmap: found.bitmap)
            case .external(let bitmap):
                let found = try services.bitmap(named: bitmap.name, node: bitmap.node, throughBacking: false)
                return ExportedBitmap(name: bitmap.name, bitmap: found.bitmap)
            }
        }
    }
}
