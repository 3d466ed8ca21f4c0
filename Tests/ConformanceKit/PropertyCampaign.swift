import ColdframeKit
import LinuxSystem

/// Random operations on an image and on a plain model, which must agree after each.
///
/// `COLDFRAME_PROPERTY_RUNS` sets the number of sequences, `COLDFRAME_PROPERTY_SEED` the first seed.
public struct PropertyCampaign: Sendable {
    let subject: DiskSubject
    let byteCount: Int
    let defaultRuns: Int
    let operationCount: Int
    let storage: SubjectImage.Storage

    /// - Parameter storage: a folder where `verify` needs files for a tool.
    public init(
        subject: DiskSubject, byteCount: Int, defaultRuns: Int = 4, operationCount: Int = 40,
        storage: SubjectImage.Storage = .memory
    ) {
        self.subject = subject
        self.byteCount = byteCount
        self.defaultRuns = defaultRuns
        self.operationCount = operationCount
        self.storage = storage
    }

    /// Throws what went wrong, with the seed and the operations that led there.
    /// - Parameter verify: what else must hold after each operation; a text where it does not.
    public func run(verify: (SubjectImage, DiskModel) throws -> String? = { _, _ in nil }) throws {
        let runs = ProcessControl.environment("COLDFRAME_PROPERTY_RUNS").flatMap { Int($0) } ?? defaultRuns
        let first =
            ProcessControl.environment("COLDFRAME_PROPERTY_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("\(subject.name): \(runs) sequences of random operations from seed \(first)")
        for run in 0..<UInt64(runs) { try runSequence(seed: first &+ run, verify) }
    }

    private func runSequence(seed: UInt64, _ verify: (SubjectImage, DiskModel) throws -> String?) throws {
        var generator = SeededGenerator(seed: seed)
        let byteCount = 512 * Int.random(in: 1...max(1, self.byteCount / 512), using: &generator)
        let image = try SubjectImage(subject, byteCount: UInt64(byteCount), storage: storage)
        var model = DiskModel(byteCount: byteCount)
        var driver = try image.open()
        var log = "\(subject.name): seed \(seed), a disk of \(byteCount) bytes"
        for _ in 0..<operationCount {
            let operation = DiskOperation.random(
                byteCount: max(1, model.disk.count), maximum: min(max(1, model.disk.count), 300_000), &generator)
            log += "\n\(operation)"
            do {
                try model.apply(operation, to: &driver) { old in
                    try old.close()
                    return try image.open()
                }
                if let difference = try model.difference(from: driver) ?? verify(image, model) {
                    throw ColdframeError(.corrupt, difference)
                }
            } catch {
                throw ColdframeError(wrapping: error).prefixed(log)
            }
        }
        try driver.close()
        driver = try image.open(isReadOnly: true)
        if let difference = try model.difference(from: driver) {
            throw ColdframeError(.corrupt, "\(log)\nopened again: \(difference)")
        }
        try driver.close()
    }
}
