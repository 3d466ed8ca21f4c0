import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Random operations over random options; `qemu-img` and a plain model must agree with the image after each.
/// `COLDFRAME_PROPERTY_RUNS` sets the number of sequences, `COLDFRAME_PROPERTY_SEED` the first seed.
@Suite struct PropertyTests {
    @Test func randomOperationsAgreeWithTheModelAndQEMU() throws {
        let runs = ProcessControl.environment("COLDFRAME_PROPERTY_RUNS").flatMap { Int($0) } ?? 8
        let first =
            ProcessControl.environment("COLDFRAME_PROPERTY_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("qcow2 property tests: \(runs) runs from seed \(first)")
        for run in 0..<UInt64(runs) { try runSequence(seed: first &+ run) }
    }

    private func runSequence(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        let spec = ImageSpec.random(&generator)
        try spec.make(fixture, path)
        try fixture.expectClean(path, "seed \(seed) \(spec)")
        var model = spec.model
        var driver = try spec.open(path)
        if spec.hasBitmaps { #expect(try driver.loadBitmaps().isEmpty) }
        var log = "seed \(seed) \(spec)"
        for step in 0..<30 {
            let operation = ImageOperation.random(model, maximum: 300_000, &generator)
            log += "\n\(step): \(operation)"
            let disk = model.disk
            do {
                try model.apply(operation, to: &driver) { old in
                    try old.close()
                    try fixture.expectClean(path, log)
                    #expect(try fixture.content(path) == disk, "\(log)")
                    return try spec.open(path)
                }
            } catch {
                Issue.record("\(log)\n\(error)")
                return
            }
            try fixture.expectNoErrors(path, log)
            try model.expectEqual(driver, log)
        }
        let names = driver.snapshots
        if spec.hasBitmaps { try model.storeBitmaps(in: driver) }
        try driver.close()
        try fixture.expectClean(path, log)
        #expect(try fixture.content(path) == model.disk, "\(log)")
        if spec.options.isDataFileRaw {
            let raw = try Files.readAll(path + ".data", limit: 1 << 30)
            #expect(Array(raw.prefix(model.disk.count)) == model.disk, "raw data file, \(log)")
        }
        for info in names {
            // qemu-img shows as much of a snapshot as the disk is long.
            let shown = try fixture.content(path, snapshot: info.id, byID: true)
            let expected = model.snapshots[info.id]?.disk ?? []
            let count = min(shown.count, expected.count)
            #expect(shown[..<count] == expected[..<count], "snapshot \(info.id) \(log)")
        }
    }
}
