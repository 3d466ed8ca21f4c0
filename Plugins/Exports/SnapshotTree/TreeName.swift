/// Names of tags and nodes as file names.
///
/// Most stand as they are. What a file name cannot hold, or what would hide it from people, is written as `%` and two
/// upper-case hexadecimal digits per byte of UTF-8, as in URLs: `/`, NUL and other control characters, `%` itself, a
/// leading dot, and the first letter of a name that the tree uses itself. An empty name is a lone `%`. A name that would
/// become longer than the file system's 255 bytes is cut and ends in `%~` and a number made of the whole name.
enum TreeName {
    /// Bytes that a name may have on Linux (`NAME_MAX`).
    static let maximumByteCount = 255

    /// The file name of `name`, unlike every one of `reserved`.
    static func escaped(_ name: String, reserved: Set<String> = []) -> String {
        if name.isEmpty { return "%" }
        let isReserved = reserved.contains(name)
        var bytes: [UInt8] = []
        for (index, byte) in name.utf8.enumerated() {
            let isFirst = index == 0
            if mustEscape(byte) || isFirst && (isReserved || byte == UInt8(ascii: ".")) {
                bytes += [UInt8(ascii: "%"), digit(byte >> 4), digit(byte & 15)]
            } else {
                bytes.append(byte)
            }
        }
        if bytes.count > maximumByteCount {
            bytes = cut(bytes, to: 200) + Array("%~\(hash(name))".utf8)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// `name`, or where it is `taken`, the name with `%~2`, `%~3` … behind it.
    static func unique(_ name: String, taken: Set<String>) -> String {
        if !taken.contains(name) { return name }
        var number = 2
        while true {
            let suffix = "%~\(number)"
            let stem = cut(Array(name.utf8), to: maximumByteCount - suffix.utf8.count)
            let candidate = String(decoding: stem, as: UTF8.self) + suffix
            if !taken.contains(candidate) { return candidate }
            number += 1
        }
    }

    private static func mustEscape(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == 0x7f || byte == UInt8(ascii: "/") || byte == UInt8(ascii: "%")
    }

    private static func digit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "A") + value - 10
    }

    /// At most `limit` bytes of UTF-8, without half a character or half an escape at the end.
    private static func cut(_ bytes: [UInt8], to limit: Int) -> [UInt8] {
        guard bytes.count > limit else { return bytes }
        var end = limit
        while end > 0, bytes[end] & 0xc0 == 0x80 { end -= 1 }
        for back in 1...2 where end >= back && bytes[end - back] == UInt8(ascii: "%") {
            end -= back
            break
        }
        return Array(bytes[..<end])
    }

    /// FNV-1a, 64 bits: the same in every run, so that a long tag keeps its name.
    private static func hash(_ name: String) -> String {
        var value: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in name.utf8 { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.utf8.count) + text
    }
}
