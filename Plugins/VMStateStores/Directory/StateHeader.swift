import CChecksum
import ColdframeKit

/// The first 4096 bytes of a state's file, with all that is known of it. Numbers are little endian; README.md has the table.
enum StateHeader {
    static let byteCount = 4096
    private static let magic = Array("CFVMSTAT".utf8)
    private static let version: UInt32 = 1
    private static let checksumOffset = 12
    private static let setIDRange = 16..<52
    private static let tagOffset = 128
    private static let annotationOffset = 1152

    static func bytes(of state: StoredVMState) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        let label = state.label
        bytes.replaceSubrange(0..<8, with: magic)
        bytes.storeLittleEndian(version, at: 8)
        bytes.replaceSubrange(setIDRange, with: Array(label.setID.utf8))
        bytes.storeLittleEndian(state.checksum, at: 52)
        bytes.storeLittleEndian(state.byteCount, at: 56)
        bytes.storeLittleEndian(state.guestClockNanoseconds, at: 64)
        bytes.storeLittleEndian(label.dateSeconds, at: 72)
        bytes.storeLittleEndian(label.dateNanoseconds, at: 76)
        bytes.storeLittleEndian(UInt16(label.tag.utf8.count), at: 80)
        bytes.storeLittleEndian(UInt16(label.annotation.count), at: 82)
        bytes.replaceSubrange(tagOffset..<tagOffset + label.tag.utf8.count, with: Array(label.tag.utf8))
        bytes.replaceSubrange(annotationOffset..<annotationOffset + label.annotation.count, with: label.annotation)
        bytes.storeLittleEndian(checksum(bytes), at: checksumOffset)
        return bytes
    }

    /// `bytes` are a whole header.
    static func state(_ bytes: [UInt8]) throws(ColdframeError) -> StoredVMState {
        guard bytes.starts(with: magic) else { throw ColdframeError(.corrupt, "it does not begin as a state does") }
        var cleared = bytes
        cleared.storeLittleEndian(UInt32(0), at: checksumOffset)
        guard bytes.littleEndian(UInt32.self, at: checksumOffset) == checksum(cleared) else {
            throw ColdframeError(.corrupt, "its header has another checksum than when it was written")
        }
        guard bytes.littleEndian(UInt32.self, at: 8) == version else {
            throw ColdframeError(
                .unsupported, "it is of version \(bytes.littleEndian(UInt32.self, at: 8)); only \(version) is known")
        }
        let tagCount = Int(bytes.littleEndian(UInt16.self, at: 80))
        let annotationCount = Int(bytes.littleEndian(UInt16.self, at: 82))
        guard tagCount <= VMStateLabel.tagByteLimit, annotationCount <= VMStateLabel.annotationByteLimit else {
            throw ColdframeError(.corrupt, "its tag or annotation is longer than the header")
        }
        let label = VMStateLabel(
            setID: String(decoding: bytes[setIDRange], as: UTF8.self),
            tag: String(decoding: bytes[tagOffset..<tagOffset + tagCount], as: UTF8.self),
            dateSeconds: bytes.littleEndian(UInt32.self, at: 72),
            dateNanoseconds: bytes.littleEndian(UInt32.self, at: 76),
            annotation: Array(bytes[annotationOffset..<annotationOffset + annotationCount]))
        return StoredVMState(
            label: label, byteCount: bytes.littleEndian(UInt64.self, at: 56),
            checksum: bytes.littleEndian(UInt32.self, at: 52),
            guestClockNanoseconds: bytes.littleEndian(UInt64.self, at: 64))
    }

    private static func checksum(_ bytes: [UInt8]) -> UInt32 {
        bytes.withBytes { cf_crc32c(0, $0.baseAddress, $0.count) }
    }
}
