import ColdframeKit

/// The text inside an image that says what it is: lines of `key=value`.
struct VmdkDescriptor: Sendable, Equatable {
    let createType: String
    /// A number that changes with the content.
    let contentID: UInt32
    let parentContentID: UInt32

    static let noParent: UInt32 = 0xFFFF_FFFF

    init(_ bytes: [UInt8]) throws(ColdframeError) {
        // Zeros fill the last sector.
        let text = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        var values: [Substring: Substring] = [:]
        var extentCount = 0
        for line in text.split(whereSeparator: \.isNewline) {
            if ["RW ", "RDONLY ", "NOACCESS "].contains(where: { line.hasPrefix($0) }) { extentCount += 1 }
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            values[parts[0].trimmed] = parts[1].trimmed
        }
        guard let createType = values["createType"], let contentID = values["CID"].flatMap({ UInt32($0, radix: 16) }),
            let parentContentID = values["parentCID"].flatMap({ UInt32($0, radix: 16) })
        else {
            throw ColdframeError(.corrupt, "The image's descriptor says neither what it is nor whose it is")
        }
        guard ["monolithicSparse", "streamOptimized"].contains(createType), extentCount == 1 else {
            throw ColdframeError(
                .unsupported,
                "The image is of type '\(createType)' in \(extentCount) parts: convert it, for example with qemu-img "
                    + "convert")
        }
        guard parentContentID == Self.noParent else {
            throw ColdframeError(
                .unsupported,
                "The image shows another where it has nothing, '\(values["parentFileNameHint"] ?? "?")', which is not "
                    + "followed: merge them, for example with qemu-img convert")
        }
        self.createType = String(createType)
        self.contentID = contentID
        self.parentContentID = parentContentID
    }
}

extension Substring {
    /// Without blanks and quotes around it.
    fileprivate var trimmed: Substring {
        let isAround: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\"" }
        var text = self
        while let first = text.first, isAround(first) { text = text.dropFirst() }
        while let last = text.last, isAround(last) { text = text.dropLast() }
        return text
    }
}
