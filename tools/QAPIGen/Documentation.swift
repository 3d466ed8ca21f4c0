/// The comment block of a definition: what it is, and what its members are.
struct Documentation {
    /// Lines before the first member, without the `@name:` heading.
    let summary: [String]
    /// One line per member.
    let members: [String: String]

    init(_ lines: [String]) {
        var summary: [String] = []
        var members: [String: String] = [:]
        var current: String?
        for (index, line) in lines.enumerated() {
            if line.hasPrefix("@"), let colon = line.firstIndex(of: ":") {
                let name = String(line[line.index(after: line.startIndex)..<colon])
                let text = line[line.index(after: colon)...].drop { $0 == " " }
                // The first heading names the definition itself.
                if index == 0 { continue }
                members[name] = String(text)
                current = name
            } else if let name = current, line.hasPrefix(" ") {
                members[name, default: ""] += " " + line.drop { $0 == " " }
            } else {
                current = nil
                if !line.isEmpty { summary.append(line) }
            }
        }
        self.summary = summary
        self.members = members
    }
}
