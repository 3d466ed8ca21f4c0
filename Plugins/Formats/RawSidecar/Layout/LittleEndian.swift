import ColdframeKit

/// Builds a structure of the format: little-endian numbers and counted bytes.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put<T: FixedWidthInteger>(_ value: T) {
        Swift.withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    /// A 16-bit count and as many bytes.
    mutating func putCounted(_ text: some Collection<UInt8>) {
        put(UInt16(text.count))
        bytes.append(contentsOf: text)
    }

    mutating func put(raw: some Collection<UInt8>) { bytes.append(contentsOf: raw) }

    /// Appends zeros up to a multiple of `alignment`.
    mutating func pad(toMultipleOf alignment: Int) {
        let rest = bytes.count % alignment
        if rest != 0 { bytes.append(contentsOf: repeatElement(0, count: alignment - rest)) }
    }
}

/// Takes such a structure apart. What ends too early throws `.corrupt`.
struct ByteReader {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    var remainingCount: Int { bytes.endIndex - position }

    mutating func take<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(ColdframeError) -> T {
        let part = try take(count: MemoryLayout<T>.size)
        var value: T = 0
        for byte in part.reversed() { value = value << 8 | T(truncatingIfNeeded: byte) }
        return value
    }

    mutating func take(count: Int) throws(ColdframeError) -> ArraySlice<UInt8> {
        guard count <= remainingCount else { throw ColdframeError(.corrupt, "a record is shorter than what it holds") }
        defer { position += count }
        return bytes[position..<position + count]
    }

    mutating func takeCounted(limit: Int, _ what: String) throws(ColdframeError) -> [UInt8] {
        let count = Int(try take(UInt16.self))
        guard count <= limit else {
            throw ColdframeError(.corrupt, "\(what) has \(count) bytes, at most \(limit) are allowed")
        }
        return Array(try take(count: count))
    }

    mutating func takeText(limit: Int, _ what: String) throws(ColdframeError) -> String {
        let bytes = try takeCounted(limit: limit, what)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ColdframeError(.corrupt, "\(what) is not valid UTF-8")
        }
        return text
    }
}
