import ColdframeKit

/// What follows the header's fields: extensions, then the backing file's name, within the first cluster.
struct HeaderExtensions: Sendable, Equatable {
    var backingFormat: String?
    var externalDataFilename: String?
    var hasBitmaps = false
    var featureNames: [FeatureName] = []

    struct FeatureName: Sendable, Equatable {
        var kind: UInt8
        var bit: UInt8
        var name: String
    }

    private enum Kind {
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xE279_2ACA
        static let featureNames: UInt32 = 0x6803_F857
        static let bitmaps: UInt32 = 0x2385_2875
        static let externalDataFilename: UInt32 = 0x4441_5441
    }

    init() {}

    /// Reads the extensions of `cluster`, the first cluster of the file or what there is of it. Unknown ones are
    /// skipped; we never rewrite this area, so they are kept.
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
            let data = cluster[position..<position + byteCount]
            try read(kind, data, header)
            position += (byteCount + 7) & ~7
        }
    }

    private mutating func read(_ kind: UInt32, _ data: ArraySlice<UInt8>, _ header: Header) throws(ColdframeError) {
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
            hasBitmaps = true
        case Kind.featureNames:
            var entry = data.startIndex
            while data.endIndex - entry >= 48, featureNames.count < 192 {
                let name = data[entry + 2..<entry + 48].prefix { $0 != 0 }
                featureNames.append(
                    FeatureName(
                        kind: data[entry], bit: data[entry + 1], name: String(decoding: name, as: UTF8.self)))
                entry += 48
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

    /// The extensions of a new image, with the end marker: backing format, and the names of the features that we know.
    /// The names are left out where clusters are too small to hold them beside a backing file's name.
    static func encoded(backingFormat: String?, version: UInt32, clusterByteCount: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        func append(_ kind: UInt32, _ data: [UInt8]) {
            bytes.appendBigEndian(kind)
            bytes.appendBigEndian(UInt32(data.count))
            bytes.append(contentsOf: data)
            bytes.pad(toMultipleOf: 8)
        }
        if let backingFormat { append(Kind.backingFormat, Array(backingFormat.utf8)) }
        if version >= 3, clusterByteCount >= 4096 {
            var names: [UInt8] = []
            for (kind, bit, name) in knownFeatures {
                var entry: [UInt8] = [kind, bit]
                entry.append(contentsOf: name.utf8)
                entry.pad(toMultipleOf: 48)
                names.append(contentsOf: entry)
            }
            append(Kind.featureNames, names)
        }
        append(Kind.end, [])
        return bytes
    }

    private static let knownFeatures: [(UInt8, UInt8, String)] = [
        (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"),
        (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ]
}
