import BlockModules
import ColdframeKit
import DirectoryStore
import NBDExport
import QEMUGuest
import SnapshotTreeExport

/// The modules of this agent: the one list, with `BlockModules` for those that open images.
enum Modules {
    static let all: [Module] =
        BlockModules.all + [
            NBDExportModule.module,
            SnapshotTreeModule.module,
            QEMUGuestModule.module,
            DirectoryStoreModule.module,
        ]
}
