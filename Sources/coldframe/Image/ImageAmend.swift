import ArgumentParser
import ColdframeKit
import LinuxSystem
import QMPWire

/// `coldframe image amend -o key=value,… FILE`
struct ImageAmend: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "amend",
        abstract: "Change options of an image.",
        discussion: """
            Options are those of x-blockdev-amend, for qcow2: version (v2, v3), lazy-refcounts, refcount-bits, size, \
            backing-file, backing-fmt, data-file, data-file-raw. qemu-img's spelling with underscores and compat=0.10 or \
            1.1 are understood. An empty name takes a file name out of the image. However it ends, each option has its old \
            value or its new one.
            """)

    @Option(name: .shortAndLong, help: "What to change, as key=value,…") var options: [String]
    @Option(name: .shortAndLong, help: "The image's format; by default it is looked at.") var format: String?
    @Flag(name: .shortAndLong, help: "Show no progress.") var quiet = false
    @Flag(help: "Print the image's new description as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image.") var file: String

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        var changes = try ImageCreation.options(options)
        let format = try self.format ?? ImageOpening.probe(file)
        changes["driver"] = .string(format)
        // What lies below decides what has to be written, and only then it must be there.
        let needsBacking = changes["size"] != nil || changes["version"] != nil
        let node = try await images.open(file, format: format, isWritable: true, hasBacking: needsBacking)
        let progress = Locked(ProgressLine(title: "Amending"))
        let isQuiet = quiet || json
        try await images.workshop.amend(node, changes) { done, total in
            if !isQuiet { progress.withLock { $0.update(steps: done, of: total) } }
        }
        progress.withLock { $0.clear() }
        if json { Terminal.write(json: try await images.workshop.information(of: node)) }
        try await images.workshop.close()
    }
}
