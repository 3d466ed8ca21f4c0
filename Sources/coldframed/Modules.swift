import ColdframeKit
import FileProtocol
import NBDExport
import QEMUGuest
import Qcow2Format
import RawFormat
import SnapshotTreeExport

/// The modules of this agent: the one list.
enum Modules {
    static let all: [Module] = [
        FileProtocolModule.module,
        RawFormatModule.module,
        Qcow2FormatModule.module,
        NBDExportModule.module,
        SnapshotTreeModule.module,
        QEMUGuestModule.module,
    ]
}
