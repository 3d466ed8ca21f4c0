import ColdframeKit

/// What stands before each record in the log: 48 bytes that prove the record and its place.
/// docs/formats/raw-sidecar.md, "The log".
struct RecordFrame: Equatable, Sendable {
    static let magic: UInt32 = 0x3152_4643  // "CFR1"
    static let byteCount = 48

    var type: UInt16
    var payloadByteCount: UInt32
    /// The log's seed: tells records of this log from what an earlier one left in the same clusters.
    var log: UInt32
    /// Random: makes a record that is written again in the same place another record.
    var salt: UInt32
    /// Number of the record in its log, from 0.
    var sequence: UInt64
    /// Records that were known to be on stable storage when this one was written.
    var durableCount: UInt64
    var checksum: UInt32 = 0
    /// Checksum of the record before it.
    var predecessor: UInt32

    /// Bytes of the whole record in the log.
    var recordByteCount: Int { Self.recordByteCount(payload: Int(payloadByteCount)) }

    static func recordByteCount(payload: Int) -> Int { (byteCount + payload + 7) & ~7 }

    private func encoded(checksum: UInt32) -> [UInt8] {
        var writer = ByteWriter()
        writer.put(Self.magic)
        writer.put(type)
        writer.put(UInt16(0))
        writer.put(payloadByteCount)
        writer.put(log)
        writer.put(salt)
        writer.put(UInt32(0))
        writer.put(sequence)
        writer.put(durableCount)
        writer.put(checksum)
        writer.put(predecessor)
        return writer.bytes
    }

    /// The record's bytes, padded; sets `checksum`.
    mutating func record(_ payload: [UInt8]) -> [UInt8] {
        checksum = Checksum.of(payload, after: Checksum.of(encoded(checksum: 0)))
        var writer = ByteWriter()
        writer.put(raw: encoded(checksum: checksum))
        writer.put(raw: payload)
        writer.pad(toMultipleOf: 8)
        return writer.bytes
    }

    /// The frame of a whole record at the beginning of `bytes`, or nil.
    init?(_ bytes: ArraySlice<UInt8>) {
        var reader = ByteReader(bytes)
        do throws(ColdframeError) {
            guard try reader.take(UInt32.self) == Self.magic else { return nil }
            type = try reader.take()
            guard try reader.take(UInt16.self) == 0 else { return nil }
            payloadByteCount = try reader.take()
            log = try reader.take()
            salt = try reader.take()
            guard try reader.take(UInt32.self) == 0 else { return nil }
            sequence = try reader.take()
            durableCount = try reader.take()
            checksum = try reader.take()
            predecessor = try reader.take()
            guard payloadByteCount <= Limits.payloadByteCount else { return nil }
            let payload = try reader.take(count: Int(payloadByteCount))
            guard checksum == Checksum.of(Array(payload), after: Checksum.of(encoded(checksum: 0))) else { return nil }
        } catch {
            return nil
        }
    }

    init(
        type: UInt16, payloadByteCount: UInt32, log: UInt32, salt: UInt32, sequence: UInt64, durableCount: UInt64,
        predecessor: UInt32
    ) {
        self.type = type
        self.payloadByteCount = payloadByteCount
        self.log = log
        self.salt = salt
        self.sequence = sequence
        self.durableCount = durableCount
        self.predecessor = predecessor
    }
}
