import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// The file as a crash may leave it: after every call that changed it, and with some of the unflushed calls missing.
@Suite struct CrashTests {
    private struct Checkpoint {
        var callCount: Int
        var model: ImageModel
    }

    /// Runs operations on a recorded file; returns the file before, the calls, and the model after each operation.
    private func record(
        _ fixture: ImageFixture, _ scenario: CrashScenario
    ) throws -> (base: [UInt8], calls: [RecordingDriver.Call], checkpoints: [Checkpoint]) {
        let path = fixture.path("recorded")
        try scenario.make(fixture, path)
        let base = try Files.readAll(path, limit: 1 << 30)
        let recorder = RecordingDriver(try PlainFile(path: path))
        var driver = try scenario.open(fixture, BlockNode(name: "file", driver: recorder))
        var model = scenario.model
        var checkpoints = [Checkpoint(callCount: 0, model: model)]
        for operation in scenario.operations {
            try model.apply(operation, to: &driver) { $0 }
            checkpoints.append(Checkpoint(callCount: recorder.calls.count, model: model))
        }
        try driver.close()
        return (base, recorder.calls, checkpoints)
    }

    @Test(arguments: CrashScenario.all)
    func everyPrefixIsTheOldOrTheNewImage(scenario: CrashScenario) throws {
        let fixture = try ImageFixture()
        let (base, calls, checkpoints) = try record(fixture, scenario)
        var bytes = base
        // A part of them each time; all with COLDFRAME_CRASH_STRIDE=1.
        let stride = ProcessControl.environment("COLDFRAME_CRASH_STRIDE").flatMap { Int($0) } ?? 5
        let offset = Int.random(in: 0..<stride)
        for count in 0...calls.count {
            if count > 0 { bytes = RecordingDriver.replay([calls[count - 1]], on: bytes) }
            guard count % stride == offset else { continue }
            // A flush changes nothing.
            if count > 0, case .flush = calls[count - 1] { continue }
            let path = fixture.path("crashed")
            try write(bytes, path)
            let note = "\(scenario.name), after \(count) of \(calls.count) calls"
            // `qemu-img` looks at a sample: it costs more than the rest.
            if count / stride % 4 == 0 { try fixture.expectNoErrors(path, note) }
            guard let before = checkpoints.last(where: { $0.callCount <= count }) else { continue }
            let after = checkpoints.first { $0.callCount > count }
            let driver = try scenario.open(fixture, try fileNode(path))
            try expectOldOrNew(driver, before.model, after?.model, exact: before.callCount == count, note)
            try sweep(driver, note)
            if count / stride % 8 == 0 { try fixture.expectClean(path, "swept, \(note)") }
        }
    }

    @Test(arguments: CrashScenario.all)
    func missingUnflushedWritesLeaveNoCorruption(scenario: CrashScenario) throws {
        let fixture = try ImageFixture()
        let (base, calls, _) = try record(fixture, scenario)
        var generator = SeededGenerator(seed: 42)
        var flushed = base
        var epoch: [RecordingDriver.Call] = []
        for call in calls {
            guard case .flush = call else {
                epoch.append(call)
                continue
            }
            for round in 0..<4 {
                // Sizes are the file system's own metadata, which it keeps in order.
                let kept = epoch.filter { call in
                    if case .resize = call { return true }
                    return Bool.random(using: &generator)
                }
                let path = fixture.path("crashed")
                try write(RecordingDriver.replay(kept, on: flushed), path)
                let note = "\(scenario.name), round \(round), kept \(kept.count) of \(epoch.count)"
                if round % 2 == 0 { try fixture.expectNoErrors(path, note) }
                let driver = try scenario.open(fixture, try fileNode(path))
                try readAll(driver, scenario)
                for info in driver.snapshots { try readAll(try driver.openSnapshot(id: info.id), scenario) }
                try sweep(driver, note)
                if round == 0 { try fixture.expectClean(path, "swept, \(note)") }
            }
            flushed = RecordingDriver.replay(epoch, on: flushed)
            epoch = []
        }
    }

    /// Whatever it holds, it can be read; but a compressed cluster whose data was not flushed need not be one (`CompressedCrashTests`).
    private func readAll(_ disk: any BlockDriver, _ scenario: CrashScenario) throws {
        for offset in stride(from: 0, to: Int(disk.byteCount), by: 4096) {
            do {
                _ = try disk.readBytes(UInt64(offset), min(4096, Int(disk.byteCount) - offset))
            } catch let error as ColdframeError {
                guard scenario.name == "compressed", error.message.contains("can't be decompressed") else {
                    throw error
                }
            }
        }
    }

    /// As the next agent does it, which then closes the image.
    private func sweep(_ driver: Qcow2Driver, _ note: String) throws {
        _ = try driver.reclaimLeaks()
        #expect(try LeakSweep(driver).findings() == LeakSweep.Findings(), "\(note)")
        try driver.close()
    }

    private func write(_ bytes: [UInt8], _ path: String) throws {
        let file = try Descriptor.open(path, [.writeOnly, .create, .truncate])
        try file.writeAll(bytes)
        file.close()
    }

    private func expectOldOrNew(
        _ driver: Qcow2Driver, _ old: ImageModel, _ new: ImageModel?, exact: Bool, _ note: String
    ) throws {
        let ids = Set(driver.snapshots.map(\.id))
        let disk = try driver.readBytes(0, Int(driver.byteCount))
        if exact || new == nil {
            #expect(disk == old.disk, "\(note)")
            #expect(ids == Set(old.snapshots.keys), "\(note)")
        } else if let new {
            #expect(ids == Set(old.snapshots.keys) || ids == Set(new.snapshots.keys), "\(note)")
            #expect(disk.count == old.disk.count || disk.count == new.disk.count, "\(note)")
            // Within a write each byte is the old or the new one.
            let isMixed = disk.indices.allSatisfy { index in
                [old, new].contains { index < $0.disk.count && $0.disk[index] == disk[index] }
            }
            #expect(isMixed, "\(note)")
            if old.snapshots.keys != new.snapshots.keys || old.disk.count != new.disk.count {
                #expect(disk == old.disk || disk == new.disk, "\(note)")
            }
        }
        for id in ids {
            let expected = old.snapshots[id]?.disk ?? new?.snapshots[id]?.disk ?? []
            #expect(try driver.openSnapshot(id: id).readBytes(0, expected.count) == expected, "\(note)")
        }
    }
}
