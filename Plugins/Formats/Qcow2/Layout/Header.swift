import ColdframeKit

/// The header of an image: its fixed fields, decoded. The format text's section "Header".
///
/// An update writes only the fixed fields back (`encodedFixedFields`), in one piece that lies within one sector: later
/// fields, header extensions and the backing file's name stay as they are, known to us or not.
struct Header: Sendable, Equatable {
    var version: UInt32
    var backingNameOffset: UInt64
    var backingNameByteCount: UInt32
    var clusterBits: UInt32
    var diskByteCount: UInt64
    var encryptionMethod: UInt32
    var l1EntryCount: UInt32
    var l1Offset: HostOffset
    var refcountTableOffset: HostOffset
    var refcountTableClusterCount: UInt32
    var snapshotCount: UInt32
    var snapshotTableOffset: HostOffset
    var incompatible: IncompatibleFeatures = []
    var compatible: UInt64 = 0
    var autoclear: UInt64 = 0
    var refcountOrder: UInt32 = 4
    var headerByteCount: UInt32 = 72
    var compressionType: UInt8 = 0

    struct IncompatibleFeatures: OptionSet, Sendable {
        let rawValue: UInt64
        static let dirty = Self(rawValue: 1)
        static let corrupt = Self(rawValue: 2)
        static let externalDataFile = Self(rawValue: 4)
        static let compressionType = Self(rawValue: 8)
        static let extendedL2 = Self(rawValue: 16)
        static let known: Self = [.dirty, .corrupt, .externalDataFile, .compressionType, .extendedL2]
    }

    static let magic: UInt32 = 0x5146_49FB
    static let version2ByteCount = 72
    static let version3ByteCount = 104
    /// What a header has that we write, of version 3.
    static let newByteCount: UInt32 = 112
    /// The first field that `encodedFixedFields` leaves alone.
    static let compressionTypeOffset = 104
    static let lazyRefcountsFeature: UInt64 = 1
    static let bitmapsAutoclear: UInt64 = 1
    /// The external data file is a plain raw image of the disk.
    static let rawExternalDataAutoclear: UInt64 = 2

    var geometry: Geometry {
        Geometry(
            clusterBits: Int(clusterBits), refcountOrder: Int(refcountOrder),
            hasExtendedL2: incompatible.contains(.extendedL2), version: version,
            hasExternalData: incompatible.contains(.externalDataFile))
    }

    /// Decodes and checks what can be checked without the rest of the file. `bytes` is the file's beginning, at least
    /// up to 112 bytes if the file is that long. Feature bits are checked later, when their names are known.
    init(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.count >= Self.version2ByteCount, bytes.bigEndian(UInt32.self, at: 0) == Self.magic else {
            throw ColdframeError(.invalidArgument, "Image is not in qcow2 format")
        }
        version = bytes.bigEndian(UInt32.self, at: 4)
        guard version == 2 || version == 3 else {
            throw ColdframeError(.unsupported, "Unsupported qcow2 version \(version)")
        }
        backingNameOffset = bytes.bigEndian(UInt64.self, at: 8)
        backingNameByteCount = bytes.bigEndian(UInt32.self, at: 16)
        clusterBits = bytes.bigEndian(UInt32.self, at: 20)
        diskByteCount = bytes.bigEndian(UInt64.self, at: 24)
        encryptionMethod = bytes.bigEndian(UInt32.self, at: 32)
        l1EntryCount = bytes.bigEndian(UInt32.self, at: 36)
        l1Offset = HostOffset(bytes.bigEndian(UInt64.self, at: 40))
        refcountTableOffset = HostOffset(bytes.bigEndian(UInt64.self, at: 48))
        refcountTableClusterCount = bytes.bigEndian(UInt32.self, at: 56)
        snapshotCount = bytes.bigEndian(UInt32.self, at: 60)
        snapshotTableOffset = HostOffset(bytes.bigEndian(UInt64.self, at: 64))
        guard Geometry.clusterBitsRange.contains(Int(clusterBits)) else {
            throw ColdframeError(.invalidArgument, "Unsupported cluster size: 2^\(clusterBits)")
        }
        if version >= 3 { try readVersion3Fields(bytes) }
        guard UInt64(headerByteCount) <= 1 << UInt64(clusterBits) else {
            throw ColdframeError(.corrupt, "qcow2 header exceeds cluster size", errno: 22)
        }
        guard backingNameOffset <= 1 << UInt64(clusterBits) else {
            throw ColdframeError(.corrupt, "Invalid backing file offset", errno: 22)
        }
    }

    private mutating func readVersion3Fields(_ bytes: [UInt8]) throws(ColdframeError) {
        guard bytes.count >= Self.version3ByteCount else {
            throw ColdframeError(.corrupt, "qcow2 header too short", errno: 22)
        }
        incompatible = IncompatibleFeatures(rawValue: bytes.bigEndian(UInt64.self, at: 72))
        compatible = bytes.bigEndian(UInt64.self, at: 80)
        autoclear = bytes.bigEndian(UInt64.self, at: 88)
        refcountOrder = bytes.bigEndian(UInt32.self, at: 96)
        headerByteCount = bytes.bigEndian(UInt32.self, at: 100)
        guard headerByteCount >= UInt32(Self.version3ByteCount) else {
            throw ColdframeError(.corrupt, "qcow2 header too short", errno: 22)
        }
        if headerByteCount > 104, bytes.count > Self.compressionTypeOffset {
            compressionType = bytes[Self.compressionTypeOffset]
        }
    }

    /// A header for a new image.
    init(version: UInt32, geometry: Geometry, diskByteCount: UInt64) {
        self.version = version
        backingNameOffset = 0
        backingNameByteCount = 0
        clusterBits = UInt32(geometry.clusterBits)
        self.diskByteCount = diskByteCount
        encryptionMethod = 0
        l1EntryCount = 0
        l1Offset = HostOffset(0)
        refcountTableOffset = HostOffset(0)
        refcountTableClusterCount = 0
        snapshotCount = 0
        snapshotTableOffset = HostOffset(0)
        refcountOrder = UInt32(geometry.refcountOrder)
        headerByteCount = version >= 3 ? Self.newByteCount : 72
    }

    /// The fields of the version's fixed part, to be written at offset 0.
    var encodedFixedFields: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.version3ByteCount)
        bytes.appendBigEndian(Self.magic)
        bytes.appendBigEndian(version)
        bytes.appendBigEndian(backingNameOffset)
        bytes.appendBigEndian(backingNameByteCount)
        bytes.appendBigEndian(clusterBits)
        bytes.appendBigEndian(diskByteCount)
        bytes.appendBigEndian(encryptionMethod)
        bytes.appendBigEndian(l1EntryCount)
        bytes.appendBigEndian(l1Offset.rawValue)
        bytes.appendBigEndian(refcountTableOffset.rawValue)
        bytes.appendBigEndian(refcountTableClusterCount)
        bytes.appendBigEndian(snapshotCount)
        bytes.appendBigEndian(snapshotTableOffset.rawValue)
        guard version >= 3 else { return bytes }
        bytes.appendBigEndian(incompatible.rawValue)
        bytes.appendBigEndian(compatible)
        bytes.appendBigEndian(autoclear)
        bytes.appendBigEndian(refcountOrder)
        bytes.appendBigEndian(headerByteCount)
        return bytes
    }
}
