import QMPWire

/// A value of QEMU's command line as a reader of single members needs it: `first,key=value,flag` or a JSON object.
struct OptionValue: Sendable {
    private var members: [String: String] = [:]

    /// - Parameter impliedKey: of the first part, if that has none.
    init(_ text: String, impliedKey: String) {
        if let object = (try? JSONParser.parse(text))?.objectValue {
            for (key, member) in object {
                members[key] =
                    member.stringValue ?? member.boolValue.map { $0 ? "on" : "off" } ?? JSONWriter.string(member)
            }
            return
        }
        for (index, part) in Self.parts(text).enumerated() {
            let pieces = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            if pieces.count == 2 {
                members[pieces[0]] = pieces[1]
            } else if index == 0 {
                members[impliedKey] = part
            } else if part.hasPrefix("no") {
                members[String(part.dropFirst(2))] = "off"
            } else {
                members[part] = "on"
            }
        }
    }

    subscript(_ key: String) -> String? { members[key] }

    func isOn(_ key: String) -> Bool { ["on", "yes", "true", "y"].contains(members[key] ?? "") }

    /// A comma inside a value is written twice.
    static func escaped(_ value: String) -> String {
        value.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
    }

    private static func parts(_ text: String) -> [String] {
        var parts = [""]
        var isEscaped = false
        let characters = Array(text)
        for (index, character) in characters.enumerated() {
            if isEscaped {
                isEscaped = false
            } else if character == "," {
                if index + 1 < characters.count, characters[index + 1] == "," {
                    parts[parts.count - 1].append(",")
                    isEscaped = true
                } else {
                    parts.append("")
                }
            } else {
                parts[parts.count - 1].append(character)
            }
        }
        return parts
    }
}
