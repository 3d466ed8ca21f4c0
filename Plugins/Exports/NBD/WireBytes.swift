// Big-endian access to raw memory and byte arrays.

extension UnsafeMutableRawPointer {
    /// Stores `value` at a byte offset that needs no alignment. The memory must be there.
    @inline(__always)
    func storeBig<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}

extension UnsafeRawPointer {
    /// Loads an integer from a byte offset that needs no alignment. The memory must be there.
    @inline(__always)
    func loadBig<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T {
        T(bigEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension [UInt8] {
    /// Appends an integer. For the handshake, where allocation is no matter.
    mutating func appendBig<T: FixedWidthInteger>(_ value: T) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }
}

/// Takes apart the data of an option; every step says nil where the data is too short.
struct WireReader {
    private let bytes: ArraySlice<UInt8>
    private var index: Int

    init(_ bytes: [UInt8]) {
        self.bytes = bytes[...]
        index = 0
    }

    var remainingByteCount: Int { bytes.count - index }

    mutating func integer<T: FixedWidthInteger>(_ type: T.Type) -> T? {
        let width = T.bitWidth / 8
        guard remainingByteCount >= width else { return nil }
        var value: T = 0
        for byte in bytes[index..<index + width] { value = value << 8 | T(byte) }
        index += width
        return value
    }

    /// A string preceded by its length of 32 bits, at most `WireLimit.stringByteCount` bytes of valid UTF-8.
    mutating func string() -> String? {
        guard let count = integer(UInt32.self), count <= WireLimit.stringByteCount, count <= remainingByteCount
        else { return nil }
        let end = index + Int(count)
        defer { index = end }
        return String(validating: bytes[index..<end], as: UTF8.self)
    }
}
