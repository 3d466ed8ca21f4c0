import QMPWire

/// Options of a command line in QEMU's two forms: a JSON object, or `key=value,...` with dotted keys.
///
/// `file.driver=file,cache.direct=on` means what `{"file": {"driver": "file"}, "cache": {"direct": "on"}}` does; keys
/// that are numbers from 0 on make a list; a comma in a value is written twice; the later of two equal keys wins.
public enum Keyval {
    /// An option's value, ready to be decoded.
    /// - Parameter impliedKey: what the first item is the value of, if it has no `=`.
    public static func input(_ text: String, impliedKey: String? = nil) throws(QMPError) -> QAPIInput {
        if text.utf8.first == UInt8(ascii: "{") {
            return QAPIInput(try JSONParser.parse(text))
        }
        return QAPIInput(.object(try parse(text, impliedKey: impliedKey)), notation: .keyValue)
    }

    /// Parses dotted keys; every value is a string, a list or an object.
    public static func parse(_ text: String, impliedKey: String? = nil) throws(QMPError) -> JSONObject {
        var rest = Array(text.utf8)[...]
        let root = KeyvalNode()
        var implied = impliedKey
        while !rest.isEmpty {
            try parseItem(&rest, into: root, impliedKey: implied)
            implied = nil
        }
        guard case .object(let object) = try root.value(way: "") else {
            throw QMPError(.genericError, "Parameters '*' used inconsistently")
        }
        return object
    }

    /// Takes one `key=value` and the comma behind it.
    private static func parseItem(
        _ rest: inout ArraySlice<UInt8>, into root: KeyvalNode, impliedKey: String?
    ) throws(QMPError) {
        let key = rest.prefix { $0 != UInt8(ascii: "=") && $0 != UInt8(ascii: ",") }
        rest = rest[key.endIndex...]
        guard rest.first == UInt8(ascii: "=") else {
            if ["help", "?"].contains(string(key)) {
                throw QMPError(.genericError, "Help is not available for this option")
            }
            if let impliedKey, !key.isEmpty {
                rest = rest.dropFirst()
                return try root.put(string(key), at: [impliedKey], key: impliedKey)
            }
            _ = try fragments(of: key)
            throw QMPError(.genericError, "Expected '=' after parameter '\(string(key))'")
        }
        let way = try fragments(of: key)
        rest = rest.dropFirst()
        var value: [UInt8] = []
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: ",") {
                guard rest.first == byte else { break }
                rest = rest.dropFirst()
            }
            value.append(byte)
        }
        try root.put(string(value[...]), at: way, key: string(key))
    }

    /// The parts of a dotted key: a name first, then names or numbers.
    private static func fragments(of key: ArraySlice<UInt8>) throws(QMPError) -> [String] {
        var fragments: [String] = []
        for piece in key.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            let isNumber = !piece.isEmpty && piece.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            guard isName(piece) || isNumber && !fragments.isEmpty else {
                throw QMPError(.genericError, "Invalid parameter '\(string(key))'")
            }
            guard piece.count < 128 else {
                let word = fragments.isEmpty && piece.count == key.count ? "Parameter" : "Parameter fragment"
                throw QMPError(.genericError, "\(word) '\(string(piece))' is too long")
            }
            fragments.append(string(piece))
        }
        // As many as JSON may have; what is made here is walked recursively.
        guard fragments.count <= 1024 else { throw QMPError(.genericError, "Parameter is nested too deeply") }
        return fragments
    }

    /// A letter, then letters, digits, `-` and `_`; in front of it perhaps `__` and a vendor's domain with `_` behind.
    private static func isName(_ piece: ArraySlice<UInt8>) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
        func isWord(_ byte: UInt8) -> Bool {
            isLetter(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "-")
                || byte == UInt8(ascii: "_")
        }
        let isVendors = piece.starts(with: [UInt8(ascii: "_"), UInt8(ascii: "_")])
        guard let first = isVendors ? piece.dropFirst(2).first : piece.first else { return false }
        return isLetter(first) && piece.allSatisfy(isWord)
    }

    private static func string(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
}

/// A value on its way: text, or what lies below it.
private final class KeyvalNode {
    private var text: String?
    private var names: [String] = []
    private var children: [String: KeyvalNode] = [:]

    /// Puts a text at the end of the way. `key` is the whole key, for errors.
    func put(_ value: String, at way: [String], key: String) throws(QMPError) {
        var node = self
        for depth in way.indices {
            let isLast = depth == way.count - 1
            let child = node.children[way[depth]]
            // A node is either text or has children, from its first use on.
            if let child, (child.text != nil) != isLast {
                throw Self.inconsistent(way[...depth].joined(separator: "."))
            }
            let next = child ?? KeyvalNode()
            if child == nil {
                node.names.append(way[depth])
                node.children[way[depth]] = next
            }
            node = next
        }
        node.text = value
    }

    /// Numbers as names make a list, which must be whole.
    func value(way: String) throws(QMPError) -> JSONValue {
        if let text { return .string(text) }
        let numbered = names.filter { $0.utf8.first.map { $0 < UInt8(ascii: ":") } == true }
        if numbered.isEmpty {
            var object = JSONObject()
            for name in names {
                guard let child = children[name] else { continue }
                object[name] = try child.value(way: way.isEmpty ? name : "\(way).\(name)")
            }
            return .object(object)
        }
        guard numbered.count == names.count else { throw Self.inconsistent(way) }
        var byIndex: [Int: KeyvalNode] = [:]
        for name in numbered { byIndex[Int(name) ?? Int.max] = children[name] }
        var list: [JSONValue] = []
        for index in 0..<byIndex.count {
            guard let child = byIndex[index] else {
                throw QMPError(.genericError, "Parameter '\(way).\(index)' missing")
            }
            list.append(try child.value(way: "\(way).\(index)"))
        }
        return .array(list)
    }

    private static func inconsistent(_ way: String) -> QMPError {
        QMPError(.genericError, "Parameters '\(way).*' used inconsistently")
    }
}
