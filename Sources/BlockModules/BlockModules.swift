import BlkdebugFilter
import BlklogwritesFilter
import BlkverifyFilter
import ColdframeKit
import CompressFilter
import CopyBeforeWriteFilter
import CopyOnReadFilter
import FatFilesystem
import FileProtocol
import NullProtocol
import PreallocateFilter
import Qcow2Format
import QuorumFilter
import RawFormat
import RawSidecarFormat
import SnapshotFilter
import ThrottleFilter
import VdiFormat
import VmdkFormat
import VpcFormat

/// The modules that open images, and read the filesystems in them: for the agent and for programs that work on images without one.
public enum BlockModules {
    public static let all: [Module] = [
        FileProtocolModule.module,
        NullProtocolModule.module,
        RawFormatModule.module,
        Qcow2FormatModule.module,
        RawSidecarFormatModule.module,
        VdiFormatModule.module,
        VpcFormatModule.module,
        VmdkFormatModule.module,
        CompressModule.module,
        CopyBeforeWriteModule.module,
        CopyOnReadModule.module,
        PreallocateModule.module,
        BlklogwritesModule.module,
        BlkdebugModule.module,
        BlkverifyModule.module,
        QuorumModule.module,
        SnapshotModule.module,
        ThrottleModule.module,
        FatFilesystemModule.module,
    ]
}
