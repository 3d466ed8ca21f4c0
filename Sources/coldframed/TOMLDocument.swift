import CToml
import LinuxSystem
import QMPWire

/// A TOML document as JSON values, with the line of each of its parts.
struct TOMLDocument {
    /// What a configuration may hold beside plain members.
    enum Section: String {
        case object
        case blockdev
        case nbdServer = "nbd-server"
        case export
        case guest
        case snapshotExport = "snapshot-export"
        case monitor

        /// The order in which they are done.
        static let inOrder: [Section] = [
            .object, .blockdev, .nbdServer, .export, .guest, .snapshotExport, .monitor,
        ]

        /// `[[name]]`, any number, instead of one `[name]`.
        var isList: Bool { self != .nbdServer && self != .guest }
    }

    let root: JSONObject
    private let file: String
    private let lines: JSONObject

    init(_ text: [UInt8], file: String) throws(StartupError) {
        self.file = file
        let json = try Self.convert(text, file)
        do {
            let whole = try JSONParser.parse(json)
            guard let root = whole.objectValue?["value"]?.objectValue,
                let lines = whole.objectValue?["lines"]?.objectValue
            else { throw StartupError(file, "The configuration is not a table") }
            self.root = root
            self.lines = lines
        } catch let error as StartupError {
            throw error
        } catch {
            throw StartupError(file, "\(error)")
        }
    }

    private static func convert(_ text: [UInt8], _ file: String) throws(StartupError) -> String {
        var problem: UnsafeMutablePointer<CChar>?
        let json = text.withUnsafeBufferPointer { bytes in
            bytes.withMemoryRebound(to: CChar.self) { characters -> UnsafeMutablePointer<CChar>? in
                // An empty buffer may have no address; the length says that nothing is read from it.
                guard let base = characters.baseAddress else { return cf_toml_to_json("", 0, &problem) }
                return cf_toml_to_json(base, characters.count, &problem)
            }
        }
        defer {
            CMemory.free(json)
            CMemory.free(problem)
        }
        if let json { return String(cString: json) }
        throw StartupError("\(file):\(problem.map { String(cString: $0) } ?? "1: The configuration cannot be read")")
    }

    /// `file:line` of a part, or of the nearest part around it.
    func location(of way: String) -> String {
        var way = way[...]
        while true {
            if let line = lines[String(way)]?.intValue, line > 0 { return "\(file):\(line)" }
            guard let end = way.lastIndex(where: { $0 == "." || $0 == "[" }) else { return file }
            way = way[..<end]
        }
    }

    /// The place of what an error of decoding names in its first quotes, inside `way`.
    func location(of way: String, error: QMPError) -> String {
        let quoted = error.description.split(separator: "'", omittingEmptySubsequences: false)
        guard quoted.count >= 3 else { return location(of: way) }
        return location(of: "\(way).\(quoted[1])")
    }

    /// Refuses a key that means nothing, and a section in the wrong form.
    func checkTopLevel(_ key: String, _ value: JSONValue) throws(StartupError) {
        if ["name", "pidfile", "allow-backing", "guest-at-exit"].contains(key) { return }
        guard let section = Section(rawValue: key) else {
            throw StartupError(location(of: key), "'\(key)' means nothing in a configuration")
        }
        let isList = value.arrayValue?.allSatisfy { $0.objectValue != nil } ?? false
        if section.isList != isList || !section.isList && value.objectValue == nil {
            let form = section.isList ? "[[\(key)]]" : "[\(key)]"
            throw StartupError(location(of: key), "'\(key)' is written as \(form)")
        }
    }

    func string(_ key: String) throws(StartupError) -> String? {
        guard let value = root[key] else { return nil }
        guard let text = value.stringValue else { throw StartupError(location(of: key), "'\(key)' must be a string") }
        return text
    }

    func strings(_ key: String) throws(StartupError) -> [String] {
        guard let value = root[key] else { return [] }
        let texts = value.arrayValue?.compactMap(\.stringValue) ?? []
        guard let list = value.arrayValue, texts.count == list.count else {
            throw StartupError(location(of: key), "'\(key)' must be a list of strings")
        }
        return texts
    }

    /// The tables of a section with the way to each.
    func entries(of section: Section) -> [(way: String, value: JSONValue)] {
        guard let value = root[section.rawValue] else { return [] }
        guard let list = value.arrayValue else { return [(section.rawValue, value)] }
        return list.enumerated().map { ("\(section.rawValue)[\($0.offset)]", $0.element) }
    }
}
