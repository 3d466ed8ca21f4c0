import ColdframeKit

/// Names of the files in a store. A state is found by its set's UUID; the tag stands before it for people only.
enum StateName {
    static let suffix = ".vmstate"
    private static let tagByteLimit = 120

    /// Of a state that is being written.
    static func unfinished(_ setID: String) -> String { ".\(setID).partial" }

    /// Of a state that is whole: `TAG.UUID.vmstate`.
    static func whole(_ label: VMStateLabel) -> String { "\(escaped(label.tag)).\(label.setID)\(suffix)" }

    /// The UUID in the name of a state that is whole; nil for other files.
    static func setID(of name: String) -> String? {
        guard name.utf8.first != UInt8(ascii: "."), name.hasSuffix(suffix) else { return nil }
        let parts = name.dropLast(suffix.count).split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count >= 2, let setID = parts.last.map(String.init), VMStateLabel.isSetID(setID) else { return nil }
        return setID
    }

    /// A tag in letters that mean nothing to a shell or a filesystem: others are `%` and two digits for each byte. Long tags are
    /// cut, the file has them whole.
    static func escaped(_ tag: String) -> String {
        var text = ""
        for byte in tag.utf8 {
            let letter = Unicode.Scalar(byte)
            let isPlain =
                byte < 0x80 && (letter.properties.isAlphabetic || letter.properties.numericType != nil)
                || "_-+@:".unicodeScalars.contains(letter) || (letter == "." && !text.isEmpty)
            let digits = String(byte, radix: 16, uppercase: true)
            let piece = isPlain ? String(letter) : "%" + (digits.count < 2 ? "0" : "") + digits
            guard text.utf8.count + piece.utf8.count <= tagByteLimit else { break }
            text += piece
        }
        return text.isEmpty ? "%" : text
    }
}
