import ArgumentParser
import ColdframeKit
import QMPWire

/// `coldframe image info FILE`
struct ImageInfo: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Describe an image: size, format, snapshots, bitmaps.")

    @Option(name: .shortAndLong, help: "The image's format; by default it is looked at.")
    var format: String?
    @Flag(name: .customLong("backing-chain"), help: "Describe the images that it is backed by as well.")
    var wholeChain = false
    @Flag(help: "Print as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image.") var file: String

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        let node = try await images.open(file, format: format, hasBacking: wholeChain)
        var image: JSONValue? = try await images.workshop.information(of: node)
        try await images.workshop.close()
        var all: [JSONValue] = []
        while case .object(var object)? = image {
            image = object["backing-image"]
            object["backing-image"] = nil
            all.append(.object(object))
        }
        if json { return Terminal.write(json: wholeChain ? .array(all) : all.first ?? .null) }
        Terminal.write(all.map(Self.text).joined(separator: "\n"))
    }

    private static func text(_ image: JSONValue) -> String {
        func number(_ key: String) -> UInt64? { image[key]?.uint64Value }
        var lines = [
            "image: \(image["filename"]?.stringValue ?? "?")", "file format: \(image["format"]?.stringValue ?? "?")",
            "virtual size: \(Units.bytes(number("virtual-size") ?? 0)) (\(number("virtual-size") ?? 0) bytes)",
        ]
        if let size = number("actual-size") { lines.append("disk size: \(Units.bytes(size))") }
        if let size = number("cluster-size") { lines.append("cluster_size: \(size)") }
        if image["dirty-flag"]?.boolValue == true { lines.append("cleanly shut down: no") }
        if let backing = image["backing-filename"]?.stringValue {
            let full = image["full-backing-filename"]?.stringValue
            lines.append("backing file: \(backing)" + (full.map { $0 == backing ? "" : " (actual path: \($0))" } ?? ""))
        }
        if let format = image["backing-filename-format"]?.stringValue { lines.append("backing file format: \(format)") }
        lines.append(contentsOf: snapshots(image["snapshots"]?.arrayValue ?? []))
        if let data = image["format-specific"]?["data"]?.objectValue, data.count > 0 {
            lines.append("Format specific information:")
            for (name, value) in data {
                lines.append("    \(name): \(value.stringValue ?? JSONWriter.string(value))")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func snapshots(_ list: [JSONValue]) -> [String] {
        guard !list.isEmpty else { return [] }
        var table = Table("ID", "TAG", "STATE", "DATE (UTC)")
        for snapshot in list {
            table.add(
                snapshot["id"]?.stringValue ?? "", snapshot["name"]?.stringValue ?? "",
                Units.bytes(snapshot["vm-state-size"]?.uint64Value ?? 0),
                Units.date(secondsSinceEpoch: snapshot["date-sec"]?.intValue ?? 0))
        }
        return ["Snapshot list:", table.text]
    }
}
