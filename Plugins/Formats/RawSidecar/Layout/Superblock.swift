import ColdframeKit

/// The fixed part of a sidecar: where its log begins, and what the raw file looked like when it was last closed.
///
/// There are two slots; the one with the greater sequence and a right checksum is in force, the other is written next.
/// docs/formats/raw-sidecar.md, "Superblock".
struct Superblock: Equatable, Sendable {
    static let magic: [UInt8] = [0x43, 0x46, 0x53, 0x43, 0x0D, 0x0A, 0x1A, 0x0A]
    static let version: UInt32 = 1
    static let byteCount = 128
    static let slotOffsets: [UInt64] = [0, 4096]

    var uuid: [UInt8]
    /// Counts the superblocks that were written.
    var sequence: UInt64
    var clusterBits: UInt32
    /// Somebody has the image open for writing, or died so.
    var isInUse: Bool
    /// First segment of the log.
    var logCluster: UInt32
    var logClusterCount: UInt32
    /// What the log's first record gives as its predecessor's checksum.
    var logSeed: UInt32
    /// Records in the log: exactly, if not in use; at least, otherwise.
    var recordCount: UInt64
    /// The raw file when the image was closed; while in use, when it was opened.
    var stamp: RawStamp

    var clusterByteCount: UInt64 { 1 << UInt64(clusterBits) }

    var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.put(raw: Self.magic)
        writer.put(Self.version)
        writer.put(UInt32(Self.byteCount))
        writer.put(UInt64(0))  // incompatible features
        writer.put(UInt64(0))  // compatible features
        writer.put(raw: uuid)
        writer.put(sequence)
        writer.put(clusterBits)
        writer.put(UInt32(isInUse ? 1 : 0))
        writer.put(logCluster)
        writer.put(logClusterCount)
        writer.put(logSeed)
        writer.put(UInt32(stamp.time == nil ? 0 : 1))
        writer.put(recordCount)
        writer.put(stamp.byteCount)
        writer.put(stamp.time?.seconds ?? 0)
        writer.put(stamp.time?.nanoseconds ?? 0)
        writer.pad(toMultipleOf: Self.byteCount - 4)
        writer.put(Checksum.of(writer.bytes))
        return writer.bytes
    }

    /// nil where there is no whole superblock; throws where there is one that this version must not touch.
    init?(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.count == Self.byteCount, Array(bytes.prefix(8)) == Self.magic else { return nil }
        var tail = ByteReader(bytes[(Self.byteCount - 4)...])
        guard try tail.take(UInt32.self) == Checksum.of(Array(bytes.dropLast(4))) else { return nil }
        var reader = ByteReader(bytes[8...])
        let version: UInt32 = try reader.take()
        let size: UInt32 = try reader.take()
        let incompatible: UInt64 = try reader.take()
        _ = try reader.take(UInt64.self)
        guard version == Self.version, size == UInt32(Self.byteCount), incompatible == 0 else {
            throw ColdframeError(
                .unsupported,
                "Sidecar has version \(version) and feature bits \(incompatible), which this version does not know: "
                    + "use a newer one")
        }
        uuid = Array(try reader.take(count: 16))
        sequence = try reader.take()
        clusterBits = try reader.take()
        isInUse = try reader.take(UInt32.self) & 1 != 0
        logCluster = try reader.take()
        logClusterCount = try reader.take()
        logSeed = try reader.take()
        let hasTime = try reader.take(UInt32.self) & 1 != 0
        recordCount = try reader.take()
        let rawByteCount: UInt64 = try reader.take()
        let seconds: Int64 = try reader.take()
        let nanoseconds: UInt32 = try reader.take()
        stamp = RawStamp(
            byteCount: rawByteCount, time: hasTime ? .init(seconds: seconds, nanoseconds: nanoseconds) : nil)
        guard Limits.clusterBits.contains(clusterBits) else {
            throw ColdframeError(.corrupt, "Sidecar has clusters of 2^\(clusterBits) bytes, which is not allowed")
        }
    }

    init(
        uuid: [UInt8], sequence: UInt64, clusterBits: UInt32, isInUse: Bool, logCluster: UInt32,
        logClusterCount: UInt32, logSeed: UInt32, recordCount: UInt64, stamp: RawStamp
    ) {
        self.uuid = uuid
        self.sequence = sequence
        self.clusterBits = clusterBits
        self.isInUse = isInUse
        self.logCluster = logCluster
        self.logClusterCount = logClusterCount
        self.logSeed = logSeed
        self.recordCount = recordCount
        self.stamp = stamp
    }

    /// The slot that the next superblock goes into.
    static func slot(ofSequence sequence: UInt64) -> UInt64 { slotOffsets[Int(sequence & 1)] }
}

/// What tells whether the raw file is still the one that was left: its size and, where the node below knows it, the
/// time of its last change.
struct RawStamp: Equatable, Sendable {
    struct Time: Equatable, Sendable {
        var seconds: Int64
        var nanoseconds: UInt32
    }
    var byteCount: UInt64
    var time: Time?

    init(byteCount: UInt64, time: Time?) {
        self.byteCount = byteCount
        self.time = time
    }

    /// The stamp of the node now.
    init(_ raw: BlockNode) throws(ColdframeError) {
        byteCount = raw.byteCount
        if let stamped = raw.driver as? any ChangeStamped, let stamp = try stamped.changeStamp() {
            time = Time(seconds: stamp.seconds, nanoseconds: stamp.nanoseconds)
        }
    }

    /// A stamp without a time proves only what it has.
    func matches(_ other: RawStamp) -> Bool {
        byteCount == other.byteCount && (time == nil || other.time == nil || time == other.time)
    }
}
