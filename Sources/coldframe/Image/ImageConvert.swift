import ArgumentParser
import ColdframeKit
import ImageTools
import QMPWire

/// `coldframe image convert SOURCE TARGET`
struct ImageConvert: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Copy a disk into a new image of any format.")

    @Option(name: .shortAndLong, help: "The source's format; by default it is looked at.") var format: String?
    @Option(name: [.customShort("O"), .long], help: "The new image's format.") var outputFormat = "raw"
    @Option(name: .shortAndLong, help: "Options of the new image, as for create.") var options: [String] = []
    @Flag(name: .shortAndLong, help: "Store the data compressed.") var compress = false
    @Option(name: .shortAndLong, help: "The snapshot to copy, by tag or id, instead of the disk.") var snapshot: String?
    @Option(name: [.customShort("m"), .long], help: "How many threads copy.") var workers = 8
    @Flag(name: .shortAndLong, help: "Show no progress.") var quiet = false
    @Flag(help: "Print the new image's description as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image to copy.") var source: String
    @Argument(help: "The file to be made; what it held is lost.") var target: String

    func validate() throws {
        guard (1...64).contains(workers) else { throw ValidationError("--workers lies between 1 and 64") }
    }

    @AgentActor
    func work() async throws {
        // Each image in a graph of its own: where the target lies says nothing of where the source's names may lead.
        let images = try ImageOpening(opening, paths: [source])
        let targets = try ImageOpening(opening, paths: [target])
        let opened = try await images.open(source, format: format)
        let disk = try images.disk(of: opened, snapshot: snapshot)
        // The source holds its lock: a target that is the same file is refused before it is cut.
        try await ImageCreation.make(
            target, format: outputFormat, ImageCreation.options(options), byteCount: (disk.byteCount + 511) & ~511,
            targets.workshop)
        let new = try await targets.open(target, format: outputFormat, isWritable: true)
        var copying = ImageCopy.Options()
        copying.compresses = compress
        copying.workerCount = workers
        let settings = copying
        let isQuiet = quiet || json
        try await working {
            var line = ProgressLine(title: "Converting")
            defer { line.clear() }
            try ImageCopy.run(from: disk, to: new, settings) { done in
                if !isQuiet { line.update(current: done, total: disk.byteCount) }
            }
        }
        if json { Terminal.write(json: try await targets.workshop.information(of: new)) }
        try await targets.workshop.close()
        try await images.workshop.close()
    }
}
