import ColdframeKit

/// What is known of an open vmdk image: its geometry, and where each grain is. The directory is read at the opening, the
/// tables when they are needed. Any thread.
final class VmdkImage: Sendable {
    let file: BlockNode
    let header: VmdkHeader
    let descriptor: VmdkDescriptor
    /// First sector of each grain table; 0 if none of its grains is there.
    private let directory: [UInt32]
    private let tables = RecentValues<UInt32, [UInt32]>(limit: 256)

    private static let zeroGrain: UInt32 = 1

    /// Blocks.
    init(_ file: BlockNode) throws(ColdframeError) {
        self.file = file
        header = try VmdkHeader.read(file)
        descriptor = try VmdkDescriptor(
            file.direct.part(byteCount: header.descriptorByteCount, at: header.descriptorOffset, "The descriptor"))
        directory = try Self.numbers(file, header.directoryEntryCount, header.directoryOffset, "The grain directory")
    }

    private static func numbers(
        _ file: BlockNode, _ count: Int, _ offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) -> [UInt32] {
        try file.direct.part(byteCount: 4 * count, at: offset, what()).withBytes { bytes in
            (0..<count).map { bytes.littleEndian(UInt32.self, at: 4 * $0) }
        }
    }

    /// Bytes of the disk that one grain table describes.
    private var tableSpan: UInt64 { header.tableEntryCount * header.grainByteCount }

    /// Where the beginning of a range lies.
    func place(_ range: Range<UInt64>) throws(ColdframeError) -> Place {
        let number = Int(range.lowerBound / tableSpan)
        let sector = directory[number]
        guard sector > 0 else {
            var next = number + 1
            while UInt64(next) * tableSpan < range.upperBound, directory[next] == 0 { next += 1 }
            return Self.place(range, .zero(allocated: false), until: UInt64(next) * tableSpan)
        }
        let table = try tables.value(for: sector) { () throws(ColdframeError) in
            try Self.numbers(file, Int(header.tableEntryCount), UInt64(sector) * 512, "Grain table \(number)")
        }
        let size = header.grainByteCount
        let first = Int(range.lowerBound % tableSpan / size)
        let kind = kind(table[first], range.lowerBound % size)
        var end = first + 1
        let step = UInt32(size / 512)
        while end < table.count, isContinued(kind, table[first], table[end], UInt32(end - first) &* step) { end += 1 }
        return Self.place(range, kind, until: UInt64(number) * tableSpan + UInt64(end) * size)
    }

    private static func place(_ range: Range<UInt64>, _ kind: Place.Kind, until end: UInt64) -> Place {
        Place(byteCount: min(end, range.upperBound) - range.lowerBound, kind: kind)
    }

    /// - Parameter skip: bytes of the grain before the wanted ones.
    private func kind(_ entry: UInt32, _ skip: UInt64) -> Place.Kind {
        if entry == 0 { return .zero(allocated: false) }
        if entry == Self.zeroGrain, header.hasZeroGrains { return .zero(allocated: true) }
        return header.isCompressed ? .packed : .data(fileOffset: UInt64(entry) * 512 + skip)
    }

    /// Whether the grain of `entry`, `distance` sectors further on, continues what begins with the grain of `first`.
    /// Packed grains are read one by one.
    private func isContinued(_ kind: Place.Kind, _ first: UInt32, _ entry: UInt32, _ distance: UInt32) -> Bool {
        switch kind {
        case .packed: false
        case .data: UInt64(entry) == UInt64(first) + UInt64(distance) && entry > 1
        case .zero: self.kind(entry, 0) == kind
        }
    }

    /// Where the packed grain lies that byte `offset` of the disk is in.
    func packedOffset(_ offset: UInt64) throws(ColdframeError) -> UInt64 {
        let number = Int(offset / tableSpan)
        let sector = directory[number]
        let table = try tables.value(for: sector) { () throws(ColdframeError) in
            try Self.numbers(file, Int(header.tableEntryCount), UInt64(sector) * 512, "Grain table \(number)")
        }
        return UInt64(table[Int(offset % tableSpan / header.grainByteCount)]) * 512
    }
}
