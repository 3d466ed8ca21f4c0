import ArgumentParser
import ColdframeKit
import ImageTools
import QMPWire

/// `coldframe image map FILE`
struct ImageMapCommand: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "map", abstract: "Show where each part of a disk comes from, in the image or those below it.")

    @Option(name: .shortAndLong, help: "The image's format; by default it is looked at.")
    var format: String?
    @Option(help: "First byte to describe.") var startOffset: ByteCount = ByteCount(0)
    @Option(help: "Bytes to describe; by default all that follow.") var maxLength: ByteCount?
    @Flag(help: "Print as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image.") var file: String

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        let layers = try await images.layers(file, format: format)
        let size = layers.first?.byteCount ?? 0
        let start = min(size, startOffset.value)
        let end = start + min(size - start, maxLength?.value ?? .max)
        let names = layers.map(\.driver.displayFilename)
        let json = json
        try await working {
            var isFirst = true
            if !json { Terminal.write("Offset          Length          Mapped to       File\n") }
            try ImageMap.describe(layers, start..<end) { entry in
                // A disk may have millions of parts: each is printed as it is found.
                if json {
                    Terminal.write((isFirst ? "[" : ",\n") + JSONWriter.string(Self.value(entry)))
                    isFirst = false
                } else if entry.isPresent, !entry.readsAsZeros {
                    Terminal.write(Self.line(entry, names))
                }
            }
            if json { Terminal.write(isFirst ? "[]\n" : "]\n") }
        }
        try await images.workshop.close()
    }

    /// As `qemu-img map` has it.
    private static func value(_ entry: ImageMapEntry) -> JSONValue {
        var object: JSONObject = [
            "start": JSONValue(entry.start), "length": JSONValue(entry.byteCount), "depth": JSONValue(entry.depth),
            "present": .bool(entry.isPresent), "zero": .bool(entry.readsAsZeros), "data": .bool(entry.hasData),
        ]
        if let offset = entry.hostOffset { object["offset"] = JSONValue(offset) }
        return .object(object)
    }

    private static func line(_ entry: ImageMapEntry, _ names: [String]) -> String {
        func column(_ value: UInt64) -> String {
            let text = "0x" + String(value, radix: 16)
            return text + String(repeating: " ", count: max(1, 16 - text.count))
        }
        // A compressed cluster lies nowhere as it is.
        return column(entry.start) + column(entry.byteCount)
            + (entry.hostOffset.map(column) ?? "compressed      ") + names[entry.depth] + "\n"
    }
}
