import ArgumentParser
import ColdframeKit
import LinuxSystem
import QMPWire

/// `coldframe image check FILE`
struct ImageCheck: ImageVerb {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Prove an image's bookkeeping, and mend it.",
        discussion: """
            Exit status: 0 nothing is wrong (any more), 1 the check did not come to its end, 2 errors are left, 3 space \
            is left taken that nothing uses, 63 the format has no checks.
            """)

    enum Repair: String, ExpressibleByArgument { case leaks, all }

    @Option(name: .shortAndLong, help: "Mend: 'leaks' gives unused space back, 'all' makes the bookkeeping right.")
    var repair: Repair?
    @Option(name: .shortAndLong, help: "The image's format; by default it is looked at.")
    var format: String?
    @Flag(help: "Print as JSON.") var json = false
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    @OptionGroup var opening: ImageOpeningOptions
    @Argument(help: "The image.") var file: String

    @AgentActor
    func work() async throws {
        let images = try ImageOpening(opening, paths: [file])
        let format = try self.format ?? ImageOpening.probe(file)
        let checker: any ImageChecking
        do { checker = try images.workshop.checker(of: format) } catch {
            Terminal.writeError("\(error)\n")
            throw ExitCode(63)
        }
        var definition = ImageOpening.file(file)
        definition["read-only"] = .bool(repair == nil)
        if opening.forceShare { definition["force-share"] = true }
        let node = try await images.workshop.open(definition)
        let observer = Observer(isSilent: json || quiet)
        let repair: ImageRepair =
            switch self.repair {
            case nil: .nothing
            case .leaks: .leaks
            case .all: .all
            }
        let result = try await working { try checker.check(node, repair: repair, observer: observer) }
        try await images.workshop.close()
        observer.clear()
        if json { Terminal.write(json: Self.value(result, file, format)) } else if !quiet { print(result) }
        if result.checkErrorCount > 0 { throw ExitCode(1) }
        if result.corruptionCount > 0 { throw ExitCode(2) }
        if result.leakCount > 0 { throw ExitCode(3) }
    }

    /// `qemu-img`'s `ImageCheck`: counts of what is not there are left out.
    static func value(_ result: ImageCheckResult, _ file: String, _ format: String) -> JSONValue {
        var object: JSONObject = [
            "filename": .string(file), "format": .string(format), "check-errors": JSONValue(result.checkErrorCount),
            "image-end-offset": JSONValue(result.imageEndOffset),
        ]
        for (name, count) in [
            ("corruptions", result.corruptionCount), ("leaks", result.leakCount),
            ("corruptions-fixed", result.fixedCorruptionCount), ("leaks-fixed", result.fixedLeakCount),
            ("total-clusters", result.totalClusterCount), ("allocated-clusters", result.allocatedClusterCount),
            ("fragmented-clusters", result.fragmentedClusterCount),
            ("compressed-clusters", result.compressedClusterCount),
        ] where count > 0 { object[name] = JSONValue(count) }
        return .object(object)
    }

    private func print(_ result: ImageCheckResult) {
        var lines: [String] = []
        if result.fixedCorruptionCount + result.fixedLeakCount > 0 {
            lines.append("Mended: \(result.fixedLeakCount) leaked clusters, \(result.fixedCorruptionCount) errors")
        }
        if result.checkErrorCount > 0 { lines.append("\(result.checkErrorCount) places could not be checked") }
        if result.corruptionCount > 0 {
            lines.append("\(result.corruptionCount) errors: data may be lost; make a copy before the image is written")
        }
        if result.leakCount > 0 {
            lines.append("\(result.leakCount) leaked clusters: space is wasted, no data is harmed")
        }
        if result.checkErrorCount + result.corruptionCount + result.leakCount == 0 {
            lines.append("No errors were found in the image")
        }
        if result.totalClusterCount > 0 {
            let percent = Double(result.allocatedClusterCount) / Double(result.totalClusterCount) * 100
            lines.append(
                "\(result.allocatedClusterCount) of \(result.totalClusterCount) clusters allocated "
                    + "(\(Int(percent)) %), \(result.fragmentedClusterCount) fragmented, "
                    + "\(result.compressedClusterCount) compressed")
        }
        lines.append("Image end offset: \(result.imageEndOffset)")
        Terminal.write(lines.joined(separator: "\n") + "\n")
    }

    /// Shows findings, the first thousand, and progress.
    private final class Observer: ImageCheckObserver {
        private let state: Locked<(progress: ProgressLine, count: Int)>
        private let isSilent: Bool
        private static let limit = 1000

        init(isSilent: Bool) {
            self.isSilent = isSilent
            state = Locked((ProgressLine(title: "Checking"), 0))
        }

        func found(_ finding: String) {
            guard !isSilent else { return }
            state.withLock { state in
                state.count += 1
                guard state.count <= Self.limit + 1 else { return }
                state.progress.clear()
                Terminal.writeError(state.count > Self.limit ? "… and more\n" : finding + "\n")
            }
        }

        func progressed(done: UInt64, total: UInt64) {
            if !isSilent { state.withLock { $0.progress.update(steps: done, of: total) } }
        }

        func clear() { state.withLock { $0.progress.clear() } }
    }
}
