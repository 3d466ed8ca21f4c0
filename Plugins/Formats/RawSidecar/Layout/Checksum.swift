import CChecksum
import ColdframeKit

/// CRC-32C of everything that a sidecar holds.
enum Checksum {
    static func of(_ bytes: UnsafeRawBufferPointer, after crc: UInt32 = 0) -> UInt32 {
        cf_crc32c(crc, bytes.baseAddress, bytes.count)
    }

    static func of(_ bytes: [UInt8], after crc: UInt32 = 0) -> UInt32 {
        bytes.withBytes { of($0, after: crc) }
    }
}
