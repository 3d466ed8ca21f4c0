import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// The file of `config`: groups `[inject-error]` and `[set-state]` with lines `key = "value"`.
struct BlkdebugConfig {
    private(set) var errors: [BlkdebugInjectErrorOptions] = []
    private(set) var changes: [BlkdebugSetStateOptions] = []

    private static let byteCountLimit = 1 << 20

    init() {}

    init(path: String) throws(ColdframeError) {
        let text: [UInt8]
        do { text = try Files.readAll(path, limit: Self.byteCountLimit) } catch {
            throw ColdframeError(error, "Could not read blkdebug config file")
        }
        try self.init(text: String(decoding: text, as: UTF8.self), path: path)
    }

    init(text: String, path: String) throws(ColdframeError) {
        var group: (name: String, line: Int, members: JSONObject)?
        var number = 0
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            number += 1
            let line = line.trimmed
            if line.isEmpty || line.first == "#" { continue }
            if line.first == "[", line.last == "]" {
                try end(group, path)
                // A group may have an id, which means nothing here.
                let name = String(line.dropFirst().dropLast().prefix { $0 != " " })
                guard ["inject-error", "set-state"].contains(name) else {
                    throw Self.error(path, number, "There is no option group '\(name)'")
                }
                group = (name, number, [:])
                continue
            }
            guard let equals = line.firstIndex(of: "=") else { throw Self.error(path, number, "parse error") }
            let (key, value) = (line[..<equals].trimmed, line[line.index(after: equals)...].trimmed)
            guard value.count >= 2, value.first == "\"", value.last == "\"" else {
                throw Self.error(path, number, "parse error")
            }
            guard group != nil else { throw Self.error(path, number, "no group defined") }
            group?.members[String(key)] = .string(String(value.dropFirst().dropLast()))
        }
        try end(group, path)
    }

    private mutating func end(
        _ group: (name: String, line: Int, members: JSONObject)?, _ path: String
    ) throws(ColdframeError) {
        guard let group else { return }
        do {
            let input = QAPIInput(.object(group.members), notation: .keyValue)
            if group.name == "inject-error" {
                errors.append(try BlkdebugInjectErrorOptions(input))
            } else {
                changes.append(try BlkdebugSetStateOptions(input))
            }
        } catch {
            throw Self.error(path, group.line, error.description)
        }
    }

    private static func error(_ path: String, _ line: Int, _ text: String) -> ColdframeError {
        ColdframeError(.invalidArgument, "\(path):\(line): \(text)")
    }
}

extension Substring {
    fileprivate var trimmed: Substring {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" }
        var rest = drop(while: isBlank)
        while let last = rest.last, isBlank(last) { rest.removeLast() }
        return rest
    }
}
