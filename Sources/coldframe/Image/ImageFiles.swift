import ArgumentParser
import BlockModules
import ColdframeKit
import ImageTools
import LinuxSystem
import QMPWire

/// `coldframe image files IMAGE [PATH]`
struct ImageFiles: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "files",
        abstract: "List the files in a disk, or read one.",
        discussion: """
            Reads the guest's filesystem itself: nothing is mounted. The filesystem lies on the disk as a whole or on one of its \
            partitions (MBR, GPT). Dates are as the guest's clock had them.
            """)

    @Option(name: .shortAndLong, help: "The image's format; by default it is looked at.") var format: String?
    @Option(name: .shortAndLong, help: "The snapshot to look into, by tag or id, instead of the disk.")
    var snapshot: String?
    @Option(name: .shortAndLong, help: "The partition; by default the only one with a filesystem that is known.")
    var partition: Int?
    @Flag(help: "Write the file at PATH to the output.") var read = false
    @Flag(help: "Print as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image.") var file: String
    @Argument(help: "A directory to list, or a file.") var path = "/"

    func validate() throws {
        guard !(read && json) else { throw ValidationError("--read writes the file as it is: leave --json out") }
    }

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        let disk = try images.disk(of: try await images.open(file, format: format), snapshot: snapshot)
        let command = self
        try await working {
            let filesystem = try command.filesystem(on: disk)
            let found = try GuestPath.find(command.path, in: filesystem)
            if command.read {
                try Self.copyOut(found, of: filesystem, command.path)
            } else {
                try GuestListing.write(found, command.path, of: filesystem, asJSON: command.json)
            }
        }
        try await images.workshop.close()
    }

    /// The one that the user chose, or the only one that there is.
    private func filesystem(on disk: BlockNode) throws -> any GuestFilesystem {
        let found = try GuestVolumes.find(on: disk, BlockModules.all.flatMap(\.guestFilesystems))
        var candidates = found.volumes.filter { $0.factory != nil }
        if let partition {
            candidates = found.volumes.filter { $0.partition?.number == partition }
            guard !candidates.isEmpty else {
                throw CommandFailure("'\(file)' has no partition \(partition); \(Self.description(of: found))")
            }
        }
        guard candidates.count == 1, let factory = candidates[0].factory else {
            throw CommandFailure(
                candidates.count > 1
                    ? "'\(file)' has several filesystems; choose one with --partition: \(Self.description(of: found))"
                    : "There is no filesystem that is known: \(Self.description(of: found))")
        }
        if let damage = found.damage {
            Terminal.writeError("Warning: the partition table of '\(file)' is damaged: \(damage)\n")
        }
        return try factory.open(candidates[0].volume).forAnyThread
    }

    private static func description(of found: FoundVolumes) -> String {
        let volumes = found.volumes.map { found in
            let place = found.partition.map { "partition \($0.number)" } ?? "the whole disk"
            return "\(place) (\(Units.bytes(found.volume.byteCount)), \(found.factory?.typeName ?? "unknown"))"
        }
        let damage = found.damage.map { "the rest of the partition table is damaged: \($0)" }
        let parts = volumes + (damage.map { [$0] } ?? [])
        return parts.isEmpty
            ? "the disk has no partition table and no filesystem that is known" : parts.joined(separator: ", ")
    }

    private static func copyOut(_ file: GuestFileID, of filesystem: any GuestFilesystem, _ path: String) throws {
        guard try filesystem.attributes(of: file).kind == .regular else {
            throw CommandFailure("'\(path)' is no regular file: only those can be read")
        }
        let output = Descriptor(owning: 1)
        defer { _ = output.release() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        defer { buffer.deallocate() }
        var offset: UInt64 = 0
        while true {
            let count = try filesystem.read(file, into: buffer, at: offset)
            if count == 0 { return }
            try output.writeAll(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += UInt64(count)
        }
    }
}

/// Prints what is in a directory, or one file.
enum GuestListing {
    private static let pageLength = 256

    static func write(
        _ file: GuestFileID, _ path: String, of filesystem: any GuestFilesystem, asJSON: Bool
    ) throws {
        var isFirst = true
        /// A directory may have many entries: each is printed as it is found.
        func write(_ name: String, _ attributes: GuestFileAttributes) {
            guard asJSON else { return Terminal.write(line(name, attributes)) }
            Terminal.write((isFirst ? "[" : ",\n") + JSONWriter.string(value(name, attributes)))
            isFirst = false
        }
        let attributes = try filesystem.attributes(of: file)
        if attributes.kind == .directory {
            var position: UInt64? = 0
            while let start = position {
                let page = try filesystem.list(file, from: start, limit: pageLength)
                for entry in page.entries { write(entry.name, try filesystem.attributes(of: entry.file)) }
                position = page.next
            }
        } else {
            write(Files.lastComponent(of: path), attributes)
        }
        if asJSON { Terminal.write(isFirst ? "[]\n" : "]\n") }
    }

    private static func value(_ name: String, _ attributes: GuestFileAttributes) -> JSONValue {
        var object: JSONObject = [
            "name": .string(name), "kind": .string(attributes.kind.rawValue), "size": JSONValue(attributes.byteCount),
        ]
        if let seconds = attributes.modificationSeconds { object["modified"] = JSONValue(seconds) }
        if let permissions = attributes.permissions { object["permissions"] = JSONValue(UInt64(permissions)) }
        return .object(object)
    }

    private static func line(_ name: String, _ attributes: GuestFileAttributes) -> String {
        let size = attributes.kind == .regular ? String(attributes.byteCount) : attributes.kind.rawValue
        let date = attributes.modificationSeconds.map { Units.date(secondsSinceEpoch: $0) } ?? "-"
        func padded(_ text: String, _ count: Int) -> String {
            String(repeating: " ", count: max(0, count - text.count))
        }
        return padded(size, 12) + size + "  " + date + padded(date, 19) + "  " + visible(name) + "\n"
    }

    /// A name that cannot do anything to a terminal: what is not to be seen is written as a number.
    static func visible(_ name: String) -> String {
        name.unicodeScalars.map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse, .surrogate:
                "\\u{\(String(scalar.value, radix: 16))}"
            default: String(scalar)
            }
        }.joined()
    }
}
