/// A documentation block: text, then members (`@name: text`), then sections (`Returns: text`, `Errors:`, `Since:`, `Note:`).
struct Documentation {
    var symbol: String
    var location: Location
    /// Paragraphs; an empty string separates none.
    var body: [String] = []
    var members: [(name: String, text: String)] = []
    var sections: [(title: String, text: String)] = []

    private static let sectionTitles = ["Returns", "Errors", "Since", "Note", "Notes", "Features", "Example"]

    /// nil for a block that describes no definition.
    init?(lines: [(text: String, location: Location)], location: Location) {
        self.location = location
        var remaining = lines[...]
        while let line = remaining.first, line.text.trimmed.isEmpty { remaining = remaining.dropFirst() }
        guard let head = remaining.first, let name = Self.label(head.text), name.rest.isEmpty else {
            return nil
        }
        symbol = name.label
        var target = Target.body
        var isNewParagraph = true
        for line in remaining.dropFirst() {
            let text = line.text.trimmed
            if text.isEmpty {
                isNewParagraph = true
            } else if let member = Self.label(line.text) {
                members.append((member.label, member.rest))
                target = .member
                isNewParagraph = false
            } else if let section = Self.section(text) {
                sections.append(section)
                target = .section
                isNewParagraph = false
            } else {
                append(text, to: target, isNewParagraph: isNewParagraph)
                isNewParagraph = false
            }
        }
    }

    private enum Target { case body, member, section }

    private mutating func append(_ text: String, to target: Target, isNewParagraph: Bool) {
        func joined(_ old: String) -> String {
            old.isEmpty ? text : old + (isNewParagraph ? "\n\n" : " ") + text
        }
        switch target {
        case .body:
            if isNewParagraph || body.isEmpty {
                body.append(text)
            } else {
                body[body.count - 1] += " " + text
            }
        case .member: members[members.count - 1].text = joined(members[members.count - 1].text)
        case .section: sections[sections.count - 1].text = joined(sections[sections.count - 1].text)
        }
    }

    private static func label(_ line: String) -> (label: String, rest: String)? {
        let text = line.trimmed
        guard text.hasPrefix("@"), let colon = text.firstIndex(of: ":") else { return nil }
        let name = text[text.index(after: text.startIndex)..<colon]
        guard !name.isEmpty, !name.contains(where: { $0 == " " }) else { return nil }
        return (String(name), text[text.index(after: colon)...].trimmed)
    }

    private static func section(_ text: String) -> (title: String, text: String)? {
        guard let colon = text.firstIndex(of: ":") else { return nil }
        let title = String(text[..<colon])
        guard sectionTitles.contains(title) else { return nil }
        return (title, text[text.index(after: colon)...].trimmed)
    }

    func text(ofMember name: String) -> String? { members.first { $0.name == name }?.text }
}
