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

    private static let diskByteCount = 40 * 4096

    /// Runs operations on a recorded file; returns the file before, the calls, and the model after each operation.
    private func record(
        _ fixture: ImageFixture, _ operations: [ImageOperation]
    ) throws -> (base: [UInt8], calls: [RecordingDriver.Call], checkpoints: [Checkpoint]) {
        let path = fixture.path("recorded")
        try createImage(path, byteCount: UInt64(Self.diskByteCount), clusterByteCount: 4096)
        let base = try Files.readAll(path, limit: 1 << 30)
        let recorder = RecordingDriver(try PlainFile(path: path))
        var driver = try openImage(BlockNode(name: "file", driver: recorder))
        var model = ImageModel(disk: [UInt8](repeating: 0, count: Self.diskByteCount), clusterByteCount: 4096)
        var checkpoints = [Checkpoint(callCount: 0, model: model)]
        for operation in operations {
            try model.apply(operation, to: &driver) { $0 }
            checkpoints.append(Checkpoint(callCount: recorder.calls.count, model: model))
        }
        try driver.close()
        return (base, recorder.calls, checkpoints)
    }

    private let operations: [ImageOperation] = [
        .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2), .flush,
        .create(state: 30_000), .write(0..<4096, seed: 3), .zero(4096..<20_000, .mayUnmap), .flush,
        .revert(choice: 0), .write(100..<9_000, seed: 4), .create(state: nil), .delete(choice: 0),
        .discard(0..<100_000), .flush, .delete(choice: 1), .write(0..<100_000, seed: 5), .delete(choice: 0), .flush,
    ]

    @Test func everyPrefixIsTheOldOrTheNewImage() throws {
        let fixture = try ImageFixture()
        let (base, calls, checkpoints) = try record(fixture, operations)
        var bytes = base
        for count in 0...calls.count {
            if count > 0 { bytes = RecordingDriver.replay([calls[count - 1]], on: bytes) }
            // A flush changes nothing.
            if count > 0, case .flush = calls[count - 1] { continue }
            let path = fixture.path("crashed")
            try write(bytes, path)
            try fixture.expectNoErrors(path, "after \(count) of \(calls.count) calls")
            guard let before = checkpoints.last(where: { $0.callCount <= count }) else { continue }
            let after = checkpoints.first { $0.callCount > count }
            try expectOldOrNew(path, before.model, after?.model, exact: before.callCount == count, "call \(count)")
            try sweep(path)
            if count % 8 == 0 { try fixture.expectClean(path, "swept after \(count) of \(calls.count) calls") }
        }
    }

    @Test func missingUnflushedWritesLeaveNoCorruption() throws {
        let fixture = try ImageFixture()
        let (base, calls, _) = try record(fixture, operations)
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
                try fixture.expectNoErrors(path, "round \(round), kept \(kept.count) of \(epoch.count)")
                let driver = try openImage(path)
                _ = try driver.readBytes(0, Self.diskByteCount)
                for info in driver.snapshots {
                    _ = try driver.openSnapshot(id: info.id).readBytes(0, Self.diskByteCount)
                }
                try sweep(path)
                if round == 0 { try fixture.expectClean(path, "swept, kept \(kept.count) of \(epoch.count)") }
            }
            flushed = RecordingDriver.replay(epoch, on: flushed)
            epoch = []
        }
    }

    /// As the next agent does it, which then closes the image. `qemu-img` looks at a sample: it costs more than the rest.
    private func sweep(_ path: String) throws {
        let driver = try openImage(path)
        _ = try driver.reclaimLeaks()
        #expect(try LeakSweep(driver).findings() == LeakSweep.Findings())
        try driver.close()
    }

    private func write(_ bytes: [UInt8], _ path: String) throws {
        let file = try Descriptor.open(path, [.writeOnly, .create, .truncate])
        try file.writeAll(bytes)
        file.close()
    }

    private func expectOldOrNew(
        _ path: String, _ old: ImageModel, _ new: ImageModel?, exact: Bool, _ note: String
    ) throws {
        let driver = try openImage(path)
        let ids = Set(driver.snapshots.map(\.id))
        let disk = try driver.readBytes(0, Self.diskByteCount)
        if exact || new == nil {
            #expect(disk == old.disk, "\(note)")
            #expect(ids == Set(old.snapshots.keys), "\(note)")
        } else if let new {
            #expect(ids == Set(old.snapshots.keys) || ids == Set(new.snapshots.keys), "\(note)")
            // Within a write each byte is the old or the new one.
            let isMixed = disk.indices.allSatisfy { disk[$0] == old.disk[$0] || disk[$0] == new.disk[$0] }
            #expect(isMixed, "\(note)")
            if old.snapshots.keys != new.snapshots.keys { #expect(disk == old.disk || disk == new.disk, "\(note)") }
        }
        for id in ids {
            let expected = old.snapshots[id]?.disk ?? new?.snapshots[id]?.disk
            #expect(try driver.openSnapshot(id: id).readBytes(0, Self.diskByteCount) == expected, "\(note)")
        }
    }
}
