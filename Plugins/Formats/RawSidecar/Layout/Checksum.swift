import CChecksum

/// CRC-32C of everything that a sidecar holds.
enum Checksum {
    static func of(_ bytes: UnsafeRawBufferPointer, after crc: UInt32 = 0) -> UInt32 {
        cf_crc32c(crc, bytes.baseAddress, bytes.count)
    }

    static func of(_ bytes: [UInt8], after crc: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { of($0, after: crc) }
    }
}

/// The array's storage as bytes, with typed errors (the standard library's `withUnsafeBytes` forgets the type).
extension Array {
    func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { (buffer) throws(Failure) in try body(UnsafeRawBufferPointer(buffer)) }
    }

    mutating func withMutableBytes<Result, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeMutableBufferPointer { (buffer) throws(Failure) in
            try body(UnsafeMutableRawBufferPointer(buffer))
        }
    }
}
