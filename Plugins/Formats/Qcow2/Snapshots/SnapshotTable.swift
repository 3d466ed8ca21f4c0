import ColdframeKit

/// One entry of the snapshot table. The format text's section "Snapshots".
struct SnapshotEntry: Sendable, Equatable {
    var info: SnapshotInfo
    var l1Offset: HostOffset
    var l1EntryCount: UInt32
    /// Extra data behind the fields that we know, kept as it is; our annotation is not part of it.
    var unknownExtra: [UInt8] = []
}

/// The directory of an image's internal snapshots, as bytes.
///
/// Our annotation stands in the extra data behind the 24 bytes that the format defines, in front of anything unknown:
/// 8 bytes "CFSNAP01", 4 bytes length, the annotation, zeros up to a multiple of 8. QEMU keeps it as unknown extra data.
enum SnapshotTable {
    static let annotationMagic = Array("CFSNAP01".utf8)
    static let annotationLimit = 512
    private static let fixedByteCount = 40
    private static let knownExtraByteCount = 24

    /// The entries, and the bytes that they take in the file, which need not be what we would write.
    struct Contents: Sendable {
        var entries: [SnapshotEntry] = []
        var byteCount = 0
    }

    /// Reads the table that `header` names.
    static func read(_ header: Header, _ file: ImageFile) throws(ColdframeError) -> Contents {
        guard header.snapshotCount > 0 else { return Contents() }
        guard UInt64(header.snapshotCount) <= Limits.snapshotCount else {
            throw ColdframeError(.corrupt, "Snapshot table too large", errno: 27)
        }
        let start = header.snapshotTableOffset
        guard header.geometry.isClusterAligned(start.rawValue), start.rawValue <= UInt64(Int64.max) else {
            throw ColdframeError(.corrupt, "Snapshot table offset invalid", errno: 22)
        }
        let size = file.byteCount
        guard start.rawValue < size else {
            throw ColdframeError(
                .corrupt,
                "Failed to read snapshot table: offset \(start.rawValue) lies outside the image file of \(size) bytes")
        }
        // How long the table is shows only in reading it; what is behind its limit is not looked at.
        let byteCount = min(Limits.snapshotTableByteCount + 8, size - start.rawValue)
        var reader = WindowReader(file: file, start: start, byteCount: Int(byteCount))
        var entries: [SnapshotEntry] = []
        for index in 0..<Int(header.snapshotCount) {
            entries.append(try readEntry(&reader, index, header))
            if reader.position > Int(Limits.snapshotTableByteCount) {
                throw ColdframeError(.corrupt, "Snapshot table is too big", errno: 27)
            }
        }
        return Contents(entries: entries, byteCount: reader.position)
    }

    private static func readEntry(
        _ reader: inout WindowReader, _ index: Int, _ header: Header
    ) throws(ColdframeError) -> SnapshotEntry {
        reader.align(to: 8)
        let fixed = try reader.take(fixedByteCount)
        let extraByteCount = Int(fixed.bigEndian(UInt32.self, at: 36))
        guard extraByteCount <= Limits.snapshotExtraByteCount else {
            throw ColdframeError(
                .corrupt,
                "Too much extra metadata in snapshot table entry \(index). "
                    + "You can force-remove this extra metadata with qemu-img check -r all", errno: 27)
        }
        var extra = try reader.take(extraByteCount)
        let id = try reader.take(Int(fixed.bigEndian(UInt16.self, at: 12)))
        let name = try reader.take(Int(fixed.bigEndian(UInt16.self, at: 14)))
        var info = SnapshotInfo(
            id: String(decoding: id, as: UTF8.self), name: String(decoding: name, as: UTF8.self),
            vmStateByteCount: UInt64(fixed.bigEndian(UInt32.self, at: 32)),
            dateSeconds: fixed.bigEndian(UInt32.self, at: 16), dateNanoseconds: fixed.bigEndian(UInt32.self, at: 20),
            guestClockNanoseconds: fixed.bigEndian(UInt64.self, at: 24), diskByteCount: header.diskByteCount)
        if extra.count >= 8 { info.vmStateByteCount = extra.bigEndian(UInt64.self, at: 0) }
        if extra.count >= 16 { info.diskByteCount = extra.bigEndian(UInt64.self, at: 8) }
        if extra.count >= 24 {
            let icount = extra.bigEndian(UInt64.self, at: 16)
            info.icount = icount == .max ? nil : icount
        }
        extra.removeFirst(min(knownExtraByteCount, extra.count))
        info.annotation = takeAnnotation(&extra)
        return SnapshotEntry(
            info: info, l1Offset: HostOffset(fixed.bigEndian(UInt64.self, at: 0)),
            l1EntryCount: fixed.bigEndian(UInt32.self, at: 8), unknownExtra: extra)
    }

    private static func takeAnnotation(_ extra: inout [UInt8]) -> [UInt8] {
        guard extra.count >= 12, Array(extra[..<8]) == annotationMagic else { return [] }
        let byteCount = Int(extra.bigEndian(UInt32.self, at: 8))
        guard byteCount <= annotationLimit, byteCount <= extra.count - 12 else { return [] }
        let annotation = Array(extra[12..<12 + byteCount])
        extra.removeFirst(min(extra.count, (12 + byteCount + 7) & ~7))
        return annotation
    }

    /// The table's bytes. Throws if it would exceed what readers accept.
    static func encode(_ entries: [SnapshotEntry]) throws(ColdframeError) -> [UInt8] {
        var bytes: [UInt8] = []
        for entry in entries {
            var extra: [UInt8] = []
            extra.appendBigEndian(entry.info.vmStateByteCount)
            extra.appendBigEndian(entry.info.diskByteCount)
            extra.appendBigEndian(entry.info.icount ?? .max)
            if !entry.info.annotation.isEmpty {
                extra.append(contentsOf: annotationMagic)
                extra.appendBigEndian(UInt32(entry.info.annotation.count))
                extra.append(contentsOf: entry.info.annotation)
                extra.pad(toMultipleOf: 8)
            }
            extra.append(contentsOf: entry.unknownExtra)
            let id = Array(entry.info.id.utf8)
            let name = Array(entry.info.name.utf8)
            guard id.count <= 65535, name.count <= 65535 else {
                throw ColdframeError(.invalidArgument, "Snapshot name is longer than 65535 bytes")
            }
            guard extra.count <= Limits.snapshotExtraByteCount else {
                throw ColdframeError(
                    .invalidArgument,
                    "Extra data of snapshot '\(entry.info.name)' exceeds \(Limits.snapshotExtraByteCount) bytes")
            }
            bytes.pad(toMultipleOf: 8)
            bytes.appendBigEndian(entry.l1Offset.rawValue)
            bytes.appendBigEndian(entry.l1EntryCount)
            bytes.appendBigEndian(UInt16(id.count))
            bytes.appendBigEndian(UInt16(name.count))
            bytes.appendBigEndian(entry.info.dateSeconds)
            bytes.appendBigEndian(entry.info.dateNanoseconds)
            bytes.appendBigEndian(entry.info.guestClockNanoseconds)
            // A size that does not fit shows old readers a snapshot without state rather than a cut one.
            bytes.appendBigEndian(UInt32(exactly: entry.info.vmStateByteCount) ?? 0)
            bytes.appendBigEndian(UInt32(extra.count))
            bytes.append(contentsOf: extra)
            bytes.append(contentsOf: id)
            bytes.append(contentsOf: name)
        }
        bytes.pad(toMultipleOf: 8)
        guard UInt64(bytes.count) <= Limits.snapshotTableByteCount, UInt64(entries.count) <= Limits.snapshotCount else {
            throw ColdframeError(.unsupported, "Snapshot table is too big", errno: 27)
        }
        return bytes
    }

    /// One more than the greatest numeric id, and above `floor`.
    static func nextID(_ entries: [SnapshotEntry], floor: UInt64) throws(ColdframeError) -> String {
        let greatest = entries.reduce(floor) { max($0, UInt64($1.info.id) ?? 0) }
        guard greatest < .max else { throw ColdframeError(.unsupported, "No snapshot id is left") }
        return String(greatest + 1)
    }
}

/// Reads a stretch of a file in order, a window at a time, so that a length from a hostile header costs no memory.
private struct WindowReader {
    let file: ImageFile
    let start: HostOffset
    let byteCount: Int
    private(set) var position = 0
    private var window: [UInt8] = []
    private var windowStart = 0

    init(file: ImageFile, start: HostOffset, byteCount: Int) {
        self.file = file
        self.start = start
        self.byteCount = byteCount
    }

    mutating func align(to alignment: Int) { position = (position + alignment - 1) / alignment * alignment }

    /// At most 65535 bytes.
    mutating func take(_ count: Int) throws(ColdframeError) -> [UInt8] {
        guard count <= byteCount - position else {
            throw ColdframeError(.corrupt, "Failed to read snapshot table: it ends behind the image file or its limit")
        }
        if position < windowStart || position + count > windowStart + window.count {
            window = try file.readMetadata(
                byteCount: min(1 << 17, byteCount - position), at: start + UInt64(position), "Snapshot table")
            windowStart = position
        }
        defer { position += count }
        return Array(window[position - windowStart..<position - windowStart + count])
    }
}
