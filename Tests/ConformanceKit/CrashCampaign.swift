import ColdframeKit
import LinuxSystem

/// Runs a sequence of operations, records what reached the files of the image and in which order, and opens the image
/// as a crash at any point would have left it.
///
/// - The agent dies: every prefix of the calls. The disk is the old or the new one, and so is each snapshot.
/// - The host loses power: of the calls that no flush of their file followed, any subset is missing. What was flushed is
///   there, and every snapshot whose creation had returned holds what it held.
public struct CrashCampaign: Sendable {
    let subject: DiskSubject
    let byteCount: Int
    let operations: [DiskOperation]

    public init(subject: DiskSubject, byteCount: Int, operations: [DiskOperation]) {
        self.subject = subject
        self.byteCount = byteCount
        self.operations = operations
    }

    /// The image after an operation that ended when so many calls had been made.
    private struct Checkpoint {
        var callCount: Int
        var model: DiskModel
        var isFlushed: Bool
    }

    private struct Recording {
        var base: [String: [UInt8]]
        var entries: [CallLog.Entry]
        var checkpoints: [Checkpoint]
    }

    private func record() throws -> Recording {
        let image = try SubjectImage(subject, byteCount: UInt64(byteCount), storage: .memory)
        let base = try image.contents()
        let log = CallLog()
        var driver = try subject.open(
            try image.nodes { RecordingDriver($1, file: $0, log: log) }, false)
        var model = DiskModel(byteCount: byteCount)
        var checkpoints = [Checkpoint(callCount: 0, model: model, isFlushed: true)]
        checkpoints.append(Checkpoint(callCount: log.count, model: model, isFlushed: true))
        for operation in operations {
            try model.apply(operation, to: &driver) { $0 }
            var isFlushed = false
            switch operation {
            case .flush: isFlushed = true
            case .create, .revert: isFlushed = driver is any SnapshotBearing
            default: break
            }
            checkpoints.append(Checkpoint(callCount: log.count, model: model, isFlushed: isFlushed))
        }
        return Recording(base: base, entries: log.entries, checkpoints: checkpoints)
    }

    /// Every prefix of the calls, as kill -9 leaves them.
    /// - Parameter stride: 1 tries all; more, every so many, for sequences that are long.
    public func runKills(stride: Int = 1) throws {
        let recording = try record()
        var contents = recording.base
        let image = try SubjectImage(subject, contents: contents)
        for count in 0...recording.entries.count {
            if count > 0 {
                let entry = recording.entries[count - 1]
                // A flush changes nothing.
                if case .flush = entry.call { continue }
                contents[entry.file] = RecordingDriver.replay([entry.call], on: contents[entry.file] ?? [])
            }
            guard count % stride == 0 else { continue }
            for (file, bytes) in contents { try image.write(bytes, to: file) }
            let before = recording.checkpoints.last { $0.callCount <= count }
            let after = recording.checkpoints.first { $0.callCount > count }
            try expectOldOrNew(
                image, [before?.model, after?.model].compactMap(\.self),
                "killed after \(count) of \(recording.entries.count) calls")
        }
    }

    /// Random losses of what was not flushed. A failing one prints its seed's round.
    public func runPowerLosses(rounds: Int, seed: UInt64) throws {
        let recording = try record()
        var generator = SeededGenerator(seed: seed)
        for round in 0..<rounds {
            let count = Int.random(in: 0...recording.entries.count, using: &generator)
            let past = recording.entries[..<count]
            var contents = recording.base
            for file in subject.files {
                let calls = past.filter { $0.file == file }.map(\.call)
                let flushed = calls.lastIndex { if case .flush = $0 { true } else { false } } ?? 0
                let kept = calls[flushed...].filter { call in
                    // Sizes are the file system's own metadata, which it keeps in order.
                    if case .resize = call { return true }
                    return Bool.random(using: &generator)
                }
                contents[file] = RecordingDriver.replay(calls[..<flushed] + kept, on: contents[file] ?? [])
            }
            let image = try SubjectImage(subject, contents: contents)
            let ended = recording.checkpoints.filter { $0.callCount <= count }
            let durable = ended.lastIndex { $0.isFlushed } ?? 0
            var possible = ended[durable...].map(\.model)
            if let next = recording.checkpoints.first(where: { $0.callCount > count }) { possible.append(next.model) }
            try expectOldOrNew(image, possible, "power lost after \(count) calls, seed \(seed), round \(round)")
        }
    }

    /// The image opens, its set of snapshots is that of one of the models, each as it was, and every byte of the disk is
    /// as in one of them.
    private func expectOldOrNew(_ image: SubjectImage, _ models: [DiskModel], _ note: String) throws {
        do {
            let driver = try image.open()
            try check(driver, models)
            // What was repaired stays so.
            try driver.close()
            let again = try image.open()
            try check(again, models)
            try again.close()
        } catch {
            throw ColdframeError(wrapping: error).prefixed("\(subject.name) \(note)")
        }
    }

    private func check(_ driver: any BlockDriver, _ models: [DiskModel]) throws {
        let disk = try driver.readBytes(0, Int(driver.byteCount))
        guard models.contains(where: { $0.disk.count == disk.count }) else {
            throw ColdframeError(.corrupt, "the disk has \(disk.count) bytes")
        }
        for start in stride(from: 0, to: disk.count, by: 512) {
            let range = start..<min(start + 512, disk.count)
            let candidates = models.filter { $0.disk.count >= range.upperBound }
            if candidates.contains(where: { $0.disk[range] == disk[range] }) { continue }
            for index in range
            where !models.contains(where: { index < $0.disk.count && $0.disk[index] == disk[index] }) {
                throw ColdframeError(.corrupt, "byte \(index) of the disk is neither old nor new")
            }
        }
        guard let bearer = driver as? any SnapshotBearing else { return }
        let ids = Set(bearer.snapshots.map(\.id))
        let candidates = models.filter { Set($0.snapshots.keys) == ids }
        let differences = try candidates.map { try $0.withoutNewStates(in: bearer).snapshotDifference(from: driver) }
        guard differences.contains(nil) else {
            throw ColdframeError(
                .corrupt, "snapshots \(ids.sorted()) of \(models.map { $0.snapshots.keys.sorted() }): \(differences)")
        }
    }
}

extension DiskModel {
    /// A snapshot may be there without the state that was still being stored.
    fileprivate func withoutNewStates(in bearer: any SnapshotBearing) -> DiskModel {
        var model = self
        for info in bearer.snapshots where info.vmStateByteCount == 0 { model.snapshots[info.id]?.state = [] }
        return model
    }
}
