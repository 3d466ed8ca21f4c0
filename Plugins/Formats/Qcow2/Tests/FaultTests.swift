import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// Fails the n-th write, flush or resize of the file, for every n of each operation.
@Suite struct FaultTests {
    @Test(arguments: 0..<6)
    func everyFailedCallLeavesTheImageIntact(kind: Int) throws {
        let operation: ImageOperation =
            switch kind {
            case 0: .create(state: nil)
            case 1: .delete(choice: 0)
            case 2: .revert(choice: 1)
            case 3: .create(state: 70_000)
            case 4: .write(5_000..<90_000, seed: 9)
            default: .discard(0..<100_000)
            }
        for n in 0..<200 {
            let fixture = try ImageFixture()
            let path = fixture.path("a")
            try createImage(path, byteCount: 40 * 4096, clusterByteCount: 4096)
            let faulty = FaultyDriver(try PlainFile(path: path))
            var driver = try openImage(BlockNode(name: "file", driver: faulty))
            var model = ImageModel(disk: [UInt8](repeating: 0, count: 40 * 4096), clusterByteCount: 4096)
            for operation: ImageOperation in [
                .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2),
                .create(state: nil), .write(20_000..<40_000, seed: 3), .flush,
            ] {
                try model.apply(operation, to: &driver) { $0 }
            }
            let before = model
            faulty.fail(call: n)
            do {
                try model.apply(operation, to: &driver) { $0 }
                if faulty.callCount <= n {
                    #expect(n > 1 || kind == 5, "operation \(kind) made \(faulty.callCount) calls")
                    return
                }
                // A failure that only leaks, or that was worked around.
                faulty.heal()
                try model.expectEqual(driver, "kind \(kind) call \(n)")
            } catch {
                faulty.heal()
                if kind <= 2 { try before.expectEqual(driver, "kind \(kind) call \(n)") }
            }
            // The image goes on working, with the state that was being stored left behind.
            try driver.writeBytes([1, 2, 3], at: 7)
            #expect(try driver.readBytes(7, 3) == [1, 2, 3])
            try driver.close()
            if kind <= 2 {
                try fixture.expectClean(path, "kind \(kind) call \(n)")
            } else {
                try fixture.expectNoErrors(path, "kind \(kind) call \(n)")
            }
        }
    }
}
