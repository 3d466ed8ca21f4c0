import Glibc

/// What becomes of writes whose data is all zeros (`detect-zeroes`).
public enum ZeroDetection: Sendable {
    /// They are written as they are.
    case off
    /// They become write-zeroes requests, which a format can carry out in its metadata.
    case on
    /// The same, and the space may be given back.
    case unmap

    var flags: WriteFlags { self == .unmap ? .mayUnmap : [] }

    /// Whether all bytes are 0. Data that is not shows it in its first bytes, as a rule.
    public static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        let head = min(bytes.count, 16)
        for byte in bytes[..<head] where byte != 0 { return false }
        // Each byte equals the one 16 bytes before it.
        return bytes.count == head || memcmp(base, base + head, bytes.count - head) == 0
    }
}
