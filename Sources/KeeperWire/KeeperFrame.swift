// A frame is: kind (1 byte), length of the body (4 bytes, little endian), body. Numbers in bodies are little endian, texts
// and lists are preceded by their length in 4 bytes. A descriptor travels with the first byte of its frame.

/// A message that is no frame, or too long.
public struct KeeperFrameError: Error, Sendable, CustomStringConvertible {
    public let description: String
}

/// Collects what comes from a socket and gives out whole frames.
public struct KeeperFrameBuffer: Sendable {
    /// The longest body that is accepted.
    public static let bodyLimit = 1 << 20
    static let headerByteCount = 5
    private var bytes: [UInt8] = []

    public init() {}

    public mutating func append(_ more: UnsafeRawBufferPointer) {
        bytes.append(contentsOf: more)
    }

    /// The next frame, or nil while it is not whole.
    public mutating func next() throws(KeeperFrameError) -> (kind: UInt8, body: [UInt8])? {
        guard bytes.count >= Self.headerByteCount else { return nil }
        let length = (1...4).reduce(0) { $0 | Int(bytes[$1]) << (8 * ($1 - 1)) }
        guard length <= Self.bodyLimit else {
            throw KeeperFrameError(description: "message of \(length) bytes is too long")
        }
        let end = Self.headerByteCount + length
        guard bytes.count >= end else { return nil }
        let frame = (bytes[0], Array(bytes[Self.headerByteCount..<end]))
        bytes.removeFirst(end)
        return frame
    }
}

/// Writes a body.
struct BodyWriter {
    private var body: [UInt8] = []

    mutating func number<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            body.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }

    mutating func text(_ text: String) {
        number(UInt32(text.utf8.count))
        body += text.utf8
    }

    mutating func texts(_ texts: [String]) {
        number(UInt32(texts.count))
        for text in texts { self.text(text) }
    }

    func frame(kind: UInt8) -> [UInt8] {
        [kind] + (0..<4).map { UInt8(truncatingIfNeeded: body.count >> (8 * $0)) } + body
    }
}

/// Reads a body; every length is checked against what is there.
struct BodyReader {
    private var body: ArraySlice<UInt8>

    init(_ body: [UInt8]) { self.body = body[...] }

    mutating func number<Value: FixedWidthInteger>(_ type: Value.Type) throws(KeeperFrameError) -> Value {
        let count = Value.bitWidth / 8
        guard body.count >= count else { throw KeeperFrameError(description: "message is cut short") }
        var value: Value = 0
        for (index, byte) in body.prefix(count).enumerated() {
            value |= Value(truncatingIfNeeded: byte) << (8 * index)
        }
        body = body.dropFirst(count)
        return value
    }

    mutating func text() throws(KeeperFrameError) -> String {
        let count = Int(try number(UInt32.self))
        guard body.count >= count else { throw KeeperFrameError(description: "message is cut short") }
        defer { body = body.dropFirst(count) }
        return String(decoding: body.prefix(count), as: UTF8.self)
    }

    mutating func texts() throws(KeeperFrameError) -> [String] {
        let count = Int(try number(UInt32.self))
        // Each text has a length of four bytes at least, so that a lie about the count cannot make this long.
        guard count <= body.count / 4 else { throw KeeperFrameError(description: "message is cut short") }
        var texts: [String] = []
        for _ in 0..<count { texts.append(try text()) }
        return texts
    }

    func finish() throws(KeeperFrameError) {
        guard body.isEmpty else { throw KeeperFrameError(description: "message is longer than its content") }
    }
}
