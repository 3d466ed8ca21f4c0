import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Random operations over random geometries; `qemu-img` and a plain model must agree with the image after each.
/// `COLDFRAME_PROPERTY_RUNS` sets the number of sequences, `COLDFRAME_PROPERTY_SEED` the first seed.
@Suite struct PropertyTests {
    @Test func randomOperationsAgreeWithTheModelAndQEMU() throws {
        let runs = ProcessControl.environment("COLDFRAME_PROPERTY_RUNS").flatMap { Int($0) } ?? 4
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
        let clusterByteCount = UInt64(512) << UInt64.random(in: 0...9, using: &generator)
        let refcountBits = UInt64(1) << UInt64.random(in: 3...6, using: &generator)
        let diskByteCount = 512 * Int.random(in: 1...(clusterByteCount < 4096 ? 512 : 4096), using: &generator)
        try createImage(
            path, byteCount: UInt64(diskByteCount), clusterByteCount: clusterByteCount, refcountBits: refcountBits)
        var model = ImageModel(
            disk: [UInt8](repeating: 0, count: diskByteCount), clusterByteCount: Int(clusterByteCount))
        var driver = try openImage(path)
        var log = "seed \(seed) clusters \(clusterByteCount) refcounts \(refcountBits) disk \(diskByteCount)"
        for step in 0..<30 {
            let operation = ImageOperation.random(
                diskByteCount: diskByteCount, maximum: min(diskByteCount, 300_000), &generator)
            log += "\n\(step): \(operation)"
            do {
                try model.apply(operation, to: &driver) { old in
                    try old.close()
                    try fixture.expectClean(path, log)
                    return try openImage(path)
                }
            } catch {
                Issue.record("\(log)\n\(error)")
                return
            }
            try fixture.expectNoErrors(path, log)
            try model.expectEqual(driver, log)
        }
        let names = driver.snapshots
        try driver.close()
        try fixture.expectClean(path, log)
        #expect(try fixture.content(path) == model.disk, "\(log)")
        for info in names {
            #expect(
                try fixture.content(path, snapshot: info.id, byID: true) == model.snapshots[info.id]?.disk, "\(log)")
        }
    }
}
