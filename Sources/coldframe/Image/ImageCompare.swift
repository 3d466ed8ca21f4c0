import ArgumentParser
import ColdframeKit
import ImageTools
import QMPWire

/// `coldframe image compare FIRST SECOND`
struct ImageCompare: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Compare the content of two disks.",
        discussion: "Exit status: 0 they are equal, 1 they differ, 2 or more something went wrong.")

    @Option(name: .shortAndLong, help: "The first image's format; by default it is looked at.") var format: String?
    @Option(name: [.customShort("F"), .long], help: "The second image's format.") var secondFormat: String?
    @Flag(name: .shortAndLong, help: "Disks of other sizes differ, even if the rest of the longer one is zeros.")
    var strict = false
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    @Flag(help: "Print as JSON.") var json = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The first image.") var first: String
    @Argument(help: "The second image.") var second: String

    @AgentActor
    func work() async throws {
        let outcome: ImageComparison.Outcome
        do {
            let images = try ImageOpening(opening, paths: [first])
            let others = try ImageOpening(opening, paths: [second])
            let one = try await images.open(first, format: format)
            let two = try await others.open(second, format: secondFormat)
            let isStrict = strict
            let isSilent = quiet || json
            outcome = try await working {
                var line = ProgressLine(title: "Comparing")
                defer { line.clear() }
                let total = max(one.byteCount, two.byteCount)
                return try ImageComparison.run(one, two, isStrict: isStrict) { done in
                    if !isSilent { line.update(current: done, total: total) }
                }
            }
            try await images.workshop.close()
            try await others.workshop.close()
        } catch {
            Terminal.writeError("Error: \(error)\n")
            throw ExitCode(2)
        }
        report(outcome)
        if outcome != .identical { throw ExitCode(1) }
    }

    private func report(_ outcome: ImageComparison.Outcome) {
        var object: JSONObject = ["identical": .bool(outcome == .identical)]
        let text: String
        switch outcome {
        case .identical: text = "Images are identical."
        case .contentDiffers(let offset):
            object["offset"] = JSONValue(offset)
            text = "Content mismatch at offset \(offset)!"
        case .sizeDiffers: text = "Strict mode: Image size mismatch!"
        }
        if json { Terminal.write(json: .object(object)) } else if !quiet { Terminal.write(text + "\n") }
    }
}
