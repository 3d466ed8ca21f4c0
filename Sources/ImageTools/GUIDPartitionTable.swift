import ColdframeKit

/// Reads a GPT (UEFI specification, section 5.3): the one at the disk's beginning, or if that is damaged its copy at the end.
enum GUIDPartitionTable {
    private static let signature = Array("EFI PART".utf8)
    private static let headerByteCount = 92
    /// 128 entries of 128 bytes are usual.
    private static let entriesByteLimit: UInt64 = 1 << 20

    static func read(_ disk: NodeVolume) throws(ColdframeError) -> [Partition] {
        var refusal = ColdframeError(.corrupt, "The disk is said to have a GPT, and there is none")
        // Sectors of 512 bytes, or of 4096: the table counts in them, and only its place tells which.
        for sector in [512, 4096] as [UInt64] where disk.byteCount >= 2 * sector {
            for start in [sector, (disk.byteCount / sector - 1) * sector] {
                do {
                    if let partitions = try read(disk, sector, headerAt: start) { return partitions }
                } catch { refusal = error }
            }
        }
        throw refusal
    }

    /// nil if there is no header.
    private static func read(
        _ disk: NodeVolume, _ sector: UInt64, headerAt start: UInt64
    ) throws(ColdframeError) -> [Partition]? {
        guard start <= disk.byteCount, disk.byteCount - start >= UInt64(headerByteCount) else { return nil }
        var header = try disk.part(byteCount: headerByteCount, at: start, "The GPT's header")
        guard header.starts(with: signature) else { return nil }
        let checksum = header.littleEndian(UInt32.self, at: 16)
        header.storeLittleEndian(UInt32(0), at: 16)
        guard header.littleEndian(UInt32.self, at: 12) == UInt32(headerByteCount), CRC32.of(header) == checksum else {
            throw ColdframeError(.corrupt, "The GPT's header at \(start) is damaged")
        }
        let (place, overflow) = header.littleEndian(UInt64.self, at: 72).multipliedReportingOverflow(by: sector)
        let count = UInt64(header.littleEndian(UInt32.self, at: 80))
        let size = UInt64(header.littleEndian(UInt32.self, at: 84))
        guard !overflow, size >= 128, size % 8 == 0, count * size <= entriesByteLimit else {
            throw ColdframeError(.corrupt, "The GPT at \(start) has \(count) entries of \(size) bytes, which cannot be")
        }
        let entries = try disk.part(byteCount: Int(count * size), at: place, "The GPT's entries")
        guard CRC32.of(entries) == header.littleEndian(UInt32.self, at: 88) else {
            throw ColdframeError(.corrupt, "The entries of the GPT at \(start) are damaged")
        }
        var partitions: [Partition] = []
        for index in 0..<min(Int(count), PartitionTable.partitionLimit) {
            let entry = Array(entries[index * Int(size)..<index * Int(size) + 128])
            guard entry[..<16].contains(where: { $0 != 0 }) else { continue }
            let first = entry.littleEndian(UInt64.self, at: 32)
            let last = entry.littleEndian(UInt64.self, at: 40)
            guard first <= last, last < UInt64(Int64.max) / sector else {
                throw ColdframeError(.corrupt, "Partition \(index + 1) reaches from sector \(first) to \(last)")
            }
            partitions.append(
                Partition(
                    number: index + 1, start: first * sector, byteCount: (last - first + 1) * sector,
                    type: uuid(entry[..<16])))
        }
        return partitions
    }

    /// The first three fields are numbers in little endian.
    private static func uuid(_ bytes: ArraySlice<UInt8>) -> String {
        [[3, 2, 1, 0], [5, 4], [7, 6], [8, 9], [10, 11, 12, 13, 14, 15]].map { field in
            field.map { index in
                let digits = String(bytes[index], radix: 16)
                return digits.count < 2 ? "0" + digits : digits
            }.joined()
        }.joined(separator: "-")
    }
}

/// CRC-32 of IEEE 802.3. For a few KiB: it goes bit by bit.
enum CRC32 {
    static func of(_ bytes: [UInt8]) -> UInt32 {
        var crc: UInt32 = .max
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
        }
        return ~crc
    }
}
