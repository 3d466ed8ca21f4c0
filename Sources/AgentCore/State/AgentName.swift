/// The name of an agent: a folder's name and part of socket paths.
public enum AgentName {
    public static let rule =
        "A name has at most 64 letters, digits, '-', '_' and '.', and begins with a letter or digit"

    public static func isValid(_ name: String) -> Bool {
        func isAlphanumeric(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
        }
        guard let first = name.utf8.first, name.utf8.count <= 64 else { return false }
        return isAlphanumeric(first) && name.utf8.allSatisfy { isAlphanumeric($0) || "-_.".utf8.contains($0) }
    }
}
