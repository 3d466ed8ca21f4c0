import ColdframeKit
import LinuxSystem

/// Puts states into a store and gets them back, for tests.
public enum StoreContent {
    /// CRC32C, bit by bit: none of the agent's own code.
    public static func crc32c(_ crc: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var crc = ~crc
        for byte in bytes { crc = crc >> 8 ^ table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
        return ~crc
    }

    private static let table: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
    }

    /// A label with everything that one can have.
    public static func label(_ number: Int, tag: String = "a tag") -> VMStateLabel {
        let digits = String(number, radix: 16)
        return VMStateLabel(
            setID: "00000000-0000-4000-8000-" + String(repeating: "0", count: 12 - digits.count) + digits, tag: tag,
            dateSeconds: 1_700_000_000 + UInt32(number), dateNanoseconds: 5, annotation: [1, 2, UInt8(number & 0xFF)])
    }

    public static func bytes(_ number: Int, count: Int) -> [UInt8] {
        SeededGenerator.bytes(count, seed: UInt64(number))
    }

    /// Stores a state in pieces of no size in particular.
    @discardableResult
    public static func save(_ label: VMStateLabel, _ bytes: [UInt8], to store: any VMStateStore) throws -> StoredVMState
    {
        let writer = try store.begin(label)
        try append(bytes, to: writer)
        return try writer.commit(guestClockNanoseconds: 77)
    }

    public static func append(_ bytes: [UInt8], to writer: any VMStateStoreWriter) throws {
        var done = 0
        while done < bytes.count {
            let end = min(bytes.count, done + 7_001)
            try bytes.withBytes { (buffer) throws(ColdframeError) in
                try writer.append(UnsafeRawBufferPointer(rebasing: buffer[done..<end]))
            }
            done = end
        }
    }

    /// The whole state, after its checksum was found right.
    public static func load(_ setID: String, from store: any VMStateStore) throws -> [UInt8] {
        let reader = try store.open(setID)
        try reader.verify(crc32c)
        var bytes = [UInt8](repeating: 0, count: Int(reader.byteCount))
        try bytes.withMutableBytes { (buffer) throws(ColdframeError) in try reader.read(into: buffer, at: 0) }
        return bytes
    }
}
