import AgentCore
import ArgumentParser
import ColdframeKit
import QMPWire

/// `coldframe image create FILE SIZE`
struct ImageCreate: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Make a new image.",
        discussion: """
            Options of the format are those of blockdev-create, for qcow2: cluster-size, refcount-bits, extended-l2, \
            lazy-refcounts, compression-type, preallocation, data-file, data-file-raw, version (v2, v3). qemu-img's \
            spelling with underscores and compat=0.10 or 1.1 are understood.
            """)

    @Option(name: .shortAndLong, help: "The format.") var format = "raw"
    @Option(name: .shortAndLong, help: "Options of the format, as key=value,…") var options: [String] = []
    @Option(name: .shortAndLong, help: "The image that shows where the new one has nothing.") var backing: String?
    @Option(name: [.customShort("F"), .long], help: "The format of that image.") var backingFormat: String?
    @Flag(help: "Print the new image's description as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The file to be made; what it held is lost.") var file: String
    @Argument(help: "Size of the disk, for example 20G; by default that of the backing image.") var size: ByteCount?

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        var options = try ImageCreation.options(self.options)
        if let backing { options["backing-file"] = .string(backing) }
        if let backingFormat { options["backing-fmt"] = .string(backingFormat) }
        let size = try await diskByteCount(options, images)
        var progress = ProgressLine(title: "Creating")
        try await ImageCreation.make(file, format: format, options, byteCount: size, images.workshop) {
            progress.update(current: $0, total: size)
        }
        progress.clear()
        guard json else { return }
        let node = try await images.open(file, format: format, hasBacking: false)
        Terminal.write(json: try await images.workshop.information(of: node))
        try await images.workshop.close()
    }

    @AgentActor
    private func diskByteCount(_ options: JSONObject, _ images: ImageOpening) async throws -> UInt64 {
        if let size { return size.value }
        guard let backing = options["backing-file"]?.stringValue else {
            throw ValidationError("Image creation needs a size")
        }
        guard let format = options["backing-fmt"]?.stringValue else {
            throw ValidationError("Give the backing image's format: -F qcow2 or -F raw")
        }
        // Relative names count from the new image's folder.
        let folder = file.lastIndex(of: "/").map { String(file[...$0]) } ?? ""
        let node = try await images.open(backing.hasPrefix("/") ? backing : folder + backing, format: format)
        let byteCount = node.byteCount
        try await images.workshop.close(node)
        return byteCount
    }
}

/// New images from words of the command line.
enum ImageCreation {
    /// `key=value,key=value` as QAPI members.
    static func options(_ words: [String]) throws -> JSONObject {
        var object: JSONObject = [:]
        for word in words.flatMap({ $0.split(separator: ",") }) {
            guard let separator = word.firstIndex(of: "=") else {
                throw ValidationError("'\(word)' is not of the form key=value")
            }
            let key = String(word[..<separator].map { $0 == "_" ? "-" : $0 })
            let value = String(word[word.index(after: separator)...])
            switch key {
            case "compat": object["version"] = value == "0.10" || value == "v2" ? "v2" : "v3"
            case "cluster-size", "refcount-bits", "size", "extent-size-hint":
                guard let number = ByteCount(argument: value) else { throw ValidationError("'\(value)' is no number") }
                object[key] = JSONValue(number.value)
            case "extended-l2", "lazy-refcounts", "data-file-raw", "nocow":
                guard ["on", "off"].contains(value) else { throw ValidationError("'\(key)' is on or off") }
                object[key] = .bool(value == "on")
            default: object[key] = .string(value)
            }
        }
        return object
    }

    /// Makes the file and the image in it.
    @AgentActor
    static func make(
        _ path: String, format: String, _ options: JSONObject, byteCount: UInt64, _ workshop: ImageWorkshop,
        progress: @escaping @AgentActor (UInt64) -> Void = { _ in }
    ) async throws {
        var options = options
        options["size"] = JSONValue(byteCount)
        options["driver"] = .string(format)
        if format == "raw" {
            options["driver"] = "file"
            options["filename"] = .string(path)
        } else {
            try await workshop.create(["driver": "file", "filename": .string(path), "size": 0])
            options["file"] = .object(ImageOpening.file(path))
            if let data = options["data-file"]?.stringValue {
                try await workshop.create(["driver": "file", "filename": .string(data), "size": 0])
                options["data-file"] = .object(ImageOpening.file(data))
            }
        }
        let counter = ByteCounter(progress)
        try await workshop.create(options) { counter.add($0) }
    }

    @AgentActor
    private final class ByteCounter {
        private var done: UInt64 = 0
        private let progress: @AgentActor (UInt64) -> Void
        init(_ progress: @escaping @AgentActor (UInt64) -> Void) { self.progress = progress }
        func add(_ byteCount: UInt64) {
            done += byteCount
            progress(done)
        }
    }
}
