import ColdframeKit

/// What follows the header's fields: extensions, then the backing file's name, within the first cluster.
struct HeaderExtensions: Sendable, Equatable {
    /// As they stand in the file, in order; those that we do not know among them.
    private(set) var raw: [Extension] = []
    private(set) var backingFormat: String?
    private(set) var externalDataFilename: String?
    private(set) var bitmaps: BitmapsExtension?
    private(set) var featureNames: [FeatureName] = []

    struct Extension: Sendable, Equatable {
        var kind: UInt32
        var data: [UInt8]
    }

    struct FeatureName: Sendable, Equatable {
        var kind: UInt8
        var bit: UInt8
        var name: String
    }

    /// Where the directory of persistent bitmaps lies. The format text's "Bitmaps extension".
    struct BitmapsExtension: Sendable, Equatable {
        var count: UInt32
        var directoryByteCount: UInt64
        var directoryOffset: HostOffset

        static let byteCount = 24

        init(count: UInt32, directoryByteCount: UInt64, directoryOffset: HostOffset) {
            self.count = count
            self.directoryByteCount = directoryByteCount
            self.directoryOffset = directoryOffset
        }

        init(_ data: [UInt8]) throws(ColdframeError) {
            guard data.count == Self.byteCount else {
                throw ColdframeError(.corrupt, "bitmaps_ext: Invalid extension length", errno: 22)
            }
            count = data.bigEndian(UInt32.self, at: 0)
            guard data.bigEndian(UInt32.self, at: 4) == 0 else {
                throw ColdframeError(.corrupt, "bitmaps_ext: Reserved field is not zero", errno: 22)
            }
            directoryByteCount = data.bigEndian(UInt64.self, at: 8)
            directoryOffset = HostOffset(data.bigEndian(UInt64.self, at: 16))
        }

        var encoded: [UInt8] {
            var bytes: [UInt8] = []
            bytes.appendBigEndian(count)
            bytes.appendBigEndian(UInt32(0))
            bytes.appendBigEndian(directoryByteCount)
            bytes.appendBigEndian(directoryOffset.rawValue)
            return bytes
        }
    }

    private enum Kind {
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xE279_2ACA
        static let featureNames: UInt32 = 0x6803_F857
        static let bitmaps: UInt32 = 0x2385_2875
        static let externalDataFilename: UInt32 = 0x4441_5441
    }

    /// Those of a new image: backing format, data file, and the names of the features that we know. The names are left
    /// out where clusters are too small to hold them beside a backing file's name.
    init(backingFormat: String?, externalDataFilename: String?, version: UInt32, clusterByteCount: UInt64) {
        setBackingFormat(backingFormat)
        self.externalDataFilename = externalDataFilename
        if let externalDataFilename {
            raw.append(Extension(kind: Kind.externalDataFilename, data: Array(externalDataFilename.utf8)))
        }
        if version >= 3, clusterByteCount >= 4096 {
            setFeatureNames(true)
        }
    }

    /// Reads the extensions of `cluster`, the first cluster of the file or what there is of it.
    init(cluster: [UInt8], header: Header) throws(ColdframeError) {
        let limit = header.backingNameOffset == 0 ? cluster.count : min(cluster.count, Int(header.backingNameOffset))
        var position = Int(header.headerByteCount)
        while limit - position >= 8 {
            let kind = cluster.bigEndian(UInt32.self, at: position)
            let byteCount = Int(cluster.bigEndian(UInt32.self, at: position + 4))
            position += 8
            if kind == Kind.end { return }
            guard byteCount <= limit - position else {
                throw ColdframeError(.corrupt, "Header extension too large", errno: 22)
            }
            let data = Array(cluster[position..<position + byteCount])
            raw.append(Extension(kind: kind, data: data))
            try read(kind, data, header)
            position += (byteCount + 7) & ~7
        }
    }

    private mutating func read(_ kind: UInt32, _ data: [UInt8], _ header: Header) throws(ColdframeError) {
        switch kind {
        case Kind.backingFormat:
            guard data.count < 16 else {
                throw ColdframeError(
                    .corrupt, "ERROR: ext_backing_format: len=\(data.count) too large (>=16)", errno: 22)
            }
            backingFormat = String(decoding: data, as: UTF8.self)
        case Kind.externalDataFilename:
            externalDataFilename = String(decoding: data, as: UTF8.self)
        case Kind.bitmaps:
            // Without its autoclear bit the extension may be out of date, and says nothing.
            guard header.autoclear & Header.bitmapsAutoclear != 0 else { return }
            bitmaps = try BitmapsExtension(data)
        case Kind.featureNames:
            var entry = 0
            while data.count - entry >= Self.nameByteCount, featureNames.count < 192 {
                let name = data[entry + 2..<entry + Self.nameByteCount].prefix { $0 != 0 }
                // Blank ones are room that nobody reads.
                guard !name.isEmpty else { break }
                featureNames.append(
                    FeatureName(
                        kind: data[entry], bit: data[entry + 1], name: String(decoding: name, as: UTF8.self)))
                entry += Self.nameByteCount
            }
        default: break
        }
    }

    /// Names of the incompatible features in `mask`, as QEMU lists them.
    func describeIncompatible(_ mask: UInt64) -> String {
        var rest = mask
        var words: [String] = []
        for feature in featureNames where feature.kind == 0 && feature.bit < 64 && !feature.name.isEmpty {
            if rest & (1 << UInt64(feature.bit)) != 0 {
                words.append(feature.name)
                rest &= ~(1 << UInt64(feature.bit))
            }
        }
        if rest != 0 { words.append("Unknown incompatible feature: " + String(rest, radix: 16)) }
        return words.joined(separator: ", ")
    }

    // MARK: Changes

    mutating func setBackingFormat(_ format: String?) {
        backingFormat = format
        raw.removeAll { $0.kind == Kind.backingFormat }
        if let format { raw.insert(Extension(kind: Kind.backingFormat, data: Array(format.utf8)), at: 0) }
    }

    /// The bitmaps' extension comes first, so that it lies in one sector with the header's fields and both change in one
    /// step. nil takes it out.
    mutating func setBitmaps(_ bitmaps: BitmapsExtension?) {
        self.bitmaps = bitmaps
        raw.removeAll { $0.kind == Kind.bitmaps }
        if let bitmaps { raw.insert(Extension(kind: Kind.bitmaps, data: bitmaps.encoded), at: 0) }
    }

    /// nil takes it out: whoever opens the image says where its data is.
    mutating func setExternalDataFilename(_ name: String?) {
        externalDataFilename = name
        raw.removeAll { $0.kind == Kind.externalDataFilename }
        if let name { raw.append(Extension(kind: Kind.externalDataFilename, data: Array(name.utf8))) }
    }

    /// The names of features, which are only there to be shown, in full or not at all.
    mutating func setFeatureNames(_ areThere: Bool) {
        raw.removeAll { $0.kind == Kind.featureNames }
        if areThere { raw.append(Extension(kind: Kind.featureNames, data: Self.encodedFeatureNames)) }
    }

    /// Puts what is long behind a table of blank names, whose bytes are not read, that reaches to `place` or a little farther.
    /// Nothing where what is short already reaches so far.
    mutating func bridge(to place: Int, headerByteCount: Int) {
        let isShort: (Extension) -> Bool = { $0.kind == Kind.bitmaps || $0.kind == Kind.backingFormat }
        let rest = raw.filter { $0.kind != Kind.featureNames }
        var short = self
        short.raw = rest.filter(isShort)
        // The end marker's place is the table's.
        let start = headerByteCount + short.encoded.count
        guard place > start else { return }
        let byteCount = (place - start + Self.nameByteCount - 1) / Self.nameByteCount * Self.nameByteCount
        let blanks = Extension(kind: Kind.featureNames, data: [UInt8](repeating: 0, count: byteCount))
        raw = short.raw + [blanks] + rest.filter { !isShort($0) }
    }

    /// Has the names of features where a `bridge` has blank ones.
    mutating func endBridge() {
        let isBridge = raw.contains { $0.kind == Kind.featureNames && $0.data.dropFirst(2).first == 0 }
        if isBridge { setFeatureNames(true) }
    }

    // MARK: As bytes

    /// Which bytes of a first cluster are read behind the header's fields: extensions with their heads, and the end marker.
    static func ranges(_ cluster: [UInt8], _ header: Header) -> [Range<Int>] {
        let limit = header.backingNameOffset == 0 ? cluster.count : min(cluster.count, Int(header.backingNameOffset))
        var ranges: [Range<Int>] = []
        var position = Int(header.headerByteCount)
        while limit - position >= 8 {
            let kind = cluster.bigEndian(UInt32.self, at: position)
            let byteCount = Int(cluster.bigEndian(UInt32.self, at: position + 4))
            let end = min(limit, position + 8 + byteCount)
            let data = position + 8..<end
            ranges.append(position..<(kind == Kind.featureNames ? endOfNames(cluster, data) : end))
            if kind == Kind.end { break }
            position += 8 + (byteCount + 7) & ~7
        }
        return ranges
    }

    /// Behind the first blank name, of which only the beginning is looked at.
    private static func endOfNames(_ cluster: [UInt8], _ data: Range<Int>) -> Int {
        for entry in stride(from: data.lowerBound, to: data.upperBound, by: nameByteCount)
        where entry + 3 <= data.upperBound && cluster[entry + 2] == 0 {
            return entry + 3
        }
        return data.upperBound
    }

    private static let nameByteCount = 48

    /// With the end marker.
    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        for item in raw + [Extension(kind: Kind.end, data: [])] {
            bytes.appendBigEndian(item.kind)
            bytes.appendBigEndian(UInt32(item.data.count))
            bytes.append(contentsOf: item.data)
            bytes.pad(toMultipleOf: 8)
        }
        return bytes
    }

    private static var encodedFeatureNames: [UInt8] {
        var names: [UInt8] = []
        for (kind, bit, name) in knownFeatures {
            var entry: [UInt8] = [kind, bit]
            entry.append(contentsOf: name.utf8)
            entry.pad(toMultipleOf: nameByteCount)
            names.append(contentsOf: entry)
        }
        return names
    }

    private static let knownFeatures: [(UInt8, UInt8, String)] = [
        (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"),
        (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ]
}
