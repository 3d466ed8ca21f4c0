import QMPWire

/// Options of a command line: `key=value,…` with dotted keys, or one JSON object.
///
/// `driver=qcow2,file.driver=file,file.filename=/x` stands for nested objects; a key's component that is a number is a
/// place in a list; `,,` is a comma inside a value; of two values for one key the last counts. All scalars are strings,
/// which decoding reads by the type that it expects (`QAPIInput.Notation.keyValue`). Errors are QEMU's.
public enum KeyValue {
    /// What a command line may hold beside its values.
    private static let longestFragment = 127
    /// Deeper keys than any schema needs, to bound recursion.
    private static let deepestKey = 64

    /// Reads options into an input for decoding. Text that begins with `{` is JSON.
    /// - Parameter impliedKey: the key of a first option that is a value only, as in `--nbd-server unix`.
    public static func input(_ text: String, impliedKey: String? = nil) throws(QMPError) -> QAPIInput {
        if text.hasPrefix("{") { return QAPIInput(try JSONParser.parse(text)) }
        return QAPIInput(.object(try parse(text, impliedKey: impliedKey)), notation: .keyValue)
    }

    /// Reads `key=value,…` into an object whose leaves are strings.
    public static func parse(_ text: String, impliedKey: String? = nil) throws(QMPError) -> JSONObject {
        let root = Branch()
        var rest = Array(text.utf8)[...]
        var implied = impliedKey
        while !rest.isEmpty {
            try parseOne(&rest, into: root, impliedKey: implied)
            implied = nil
        }
        guard case .object(let object) = try root.value(path: []) else {
            // The first component of a key is never a number.
            throw QMPError(.genericError, "Parameters '*' used inconsistently")
        }
        return object
    }

    /// An inner node while keys come in.
    private final class Branch {
        enum Child {
            case leaf(String)
            case branch(Branch)
        }
        private var keys: [String] = []
        private var children: [String: Child] = [:]

        /// The inner node under a key, made if there is none; nil if a value is there.
        func branch(_ key: String) -> Branch? {
            switch children[key] {
            case .branch(let branch): return branch
            case .leaf: return nil
            case nil:
                let branch = Branch()
                keys.append(key)
                children[key] = .branch(branch)
                return branch
            }
        }

        /// Sets a value; false if an inner node is there.
        func setLeaf(_ key: String, _ text: String) -> Bool {
            if case .branch = children[key] { return false }
            if children[key] == nil { keys.append(key) }
            children[key] = .leaf(text)
            return true
        }

        /// The node as JSON: a list if its keys are numbers.
        func value(path: [String]) throws(QMPError) -> JSONValue {
            let prefix = path.map { $0 + "." }.joined()
            var object = JSONObject()
            var indexed: [Int: JSONValue] = [:]
            var hasNames = false
            var hasIndexes = false
            for key in keys {
                let value: JSONValue
                switch children[key] {
                case .leaf(let text): value = .string(text)
                case .branch(let branch): value = try branch.value(path: path + [key])
                case nil: continue
                }
                if let first = key.utf8.first, KeyValue.isDigit(first) {
                    hasIndexes = true
                    indexed[Int(key) ?? Int.max] = value
                } else {
                    hasNames = true
                    object[key] = value
                }
            }
            if hasNames, hasIndexes {
                throw QMPError(.genericError, "Parameters '\(prefix)*' used inconsistently")
            }
            guard hasIndexes else { return .object(object) }
            var list: [JSONValue] = []
            for index in 0..<indexed.count {
                guard let value = indexed[index] else {
                    throw QMPError(.genericError, "Parameter '\(prefix)\(index)' missing")
                }
                list.append(value)
            }
            return .array(list)
        }
    }

    private static func parseOne(
        _ rest: inout ArraySlice<UInt8>, into root: Branch, impliedKey: String?
    ) throws(QMPError) {
        let head = rest.prefix { $0 != UInt8(ascii: "=") && $0 != UInt8(ascii: ",") }
        let afterHead = rest.dropFirst(head.count)
        if !head.isEmpty, afterHead.first != UInt8(ascii: "=") {
            let word = String(decoding: head, as: UTF8.self)
            if word == "help" || word == "?" {
                throw QMPError(.genericError, "Help is not available for this option")
            }
            if let impliedKey {
                _ = root.setLeaf(impliedKey, word)
                rest = afterHead.dropFirst()
                return
            }
        }
        let fragments = try fragments(of: head)
        var branch = root
        for index in fragments.indices.dropLast() {
            guard let next = branch.branch(fragments[index]) else {
                let path = fragments[...index].joined(separator: ".")
                throw QMPError(.genericError, "Parameters '\(path).*' used inconsistently")
            }
            branch = next
        }
        let key = String(decoding: head, as: UTF8.self)
        guard afterHead.first == UInt8(ascii: "=") else {
            throw QMPError(.genericError, "Expected '=' after parameter '\(key)'")
        }
        rest = afterHead.dropFirst()
        let text = value(&rest)
        // `fragments` is never empty.
        guard let last = fragments.last, branch.setLeaf(last, text) else {
            throw QMPError(.genericError, "Parameters '\(key).*' used inconsistently")
        }
    }

    /// The value up to a single comma, which is taken as well.
    private static func value(_ rest: inout ArraySlice<UInt8>) -> String {
        var bytes: [UInt8] = []
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: ",") {
                guard rest.first == byte else { break }
                rest = rest.dropFirst()
            }
            bytes.append(byte)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func fragments(of key: ArraySlice<UInt8>) throws(QMPError) -> [String] {
        let invalid = QMPError(.genericError, "Invalid parameter '\(String(decoding: key, as: UTF8.self))'")
        var fragments: [String] = []
        for part in key.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard let first = part.first, fragments.count < deepestKey else { throw invalid }
            let isIndex = !fragments.isEmpty && isDigit(first)
            guard isIndex ? part.allSatisfy(isDigit) : isName(part) else { throw invalid }
            guard part.count <= longestFragment else {
                let what = fragments.isEmpty && part.count == key.count ? "Parameter" : "Parameter fragment"
                throw QMPError(.genericError, "\(what) '\(String(decoding: part, as: UTF8.self))' is too long")
            }
            // Two spellings of one number are one place in the list.
            let text = String(decoding: part, as: UTF8.self)
            fragments.append(isIndex ? Int32(text).map(String.init) ?? String(Int32.max) : text)
        }
        return fragments
    }

    fileprivate static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    /// A name of QAPI: letters, digits, `-` and `_`, a letter first; downstream names begin with `__`.
    private static func isName(_ part: ArraySlice<UInt8>) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
        }
        func isAllowed(_ byte: UInt8) -> Bool {
            isLetter(byte) || isDigit(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
        }
        guard let first = part.first else { return false }
        return (isLetter(first) || part.starts(with: "__".utf8)) && part.allSatisfy(isAllowed)
    }
}
