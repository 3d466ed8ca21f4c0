import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// An operation, and an image that it is tried on, whose n-th call fails for every n.
struct FaultCase: Sendable, CustomTestStringConvertible {
    let name: String
    let operation: ImageOperation
    /// Done or not, never halfway.
    var isAtomic = false
    var clusterByteCount: UInt64 = 4096
    var hasExtendedL2 = false
    /// Calls that it makes at the least: fewer, and the test tests nothing.
    var callCountAtLeast = 2

    var testDescription: String { name }

    static let all: [FaultCase] = [
        FaultCase(name: "create", operation: .create(state: nil), isAtomic: true),
        FaultCase(name: "delete", operation: .delete(choice: 0), isAtomic: true),
        FaultCase(name: "revert", operation: .revert(choice: 1), isAtomic: true),
        FaultCase(name: "grow", operation: .resize(100 * 4096), isAtomic: true),
        FaultCase(name: "grow far", operation: .resize(4000 * 512), isAtomic: true, clusterByteCount: 512),
        FaultCase(name: "shrink", operation: .resize(5 * 4096), isAtomic: true),
        FaultCase(name: "create with a state", operation: .create(state: 70_000)),
        FaultCase(name: "write", operation: .write(5_000..<90_000, seed: 9)),
        FaultCase(
            name: "write to subclusters", operation: .write(5_000..<90_000, seed: 9), clusterByteCount: 16384,
            hasExtendedL2: true),
        FaultCase(
            name: "zero subclusters", operation: .zero(1_000..<90_000, []), clusterByteCount: 16384,
            hasExtendedL2: true),
        FaultCase(name: "write compressed", operation: .writeCompressed(4096..<12 * 4096, seed: 9)),
        FaultCase(name: "discard", operation: .discard(0..<100_000), callCountAtLeast: 1),
    ]
}

/// Fails the n-th write, flush or resize of the file, for every n of each operation: that one alone, or all from there to the
/// operation's end, so that nothing that it would take back can be taken back at once.
@Suite struct FaultTests {
    private static let diskByteCount = 40 * 4096

    @Test(arguments: FaultCase.all, [false, true])
    func everyFailedCallLeavesTheImageIntact(test: FaultCase, andAllAfter: Bool) throws {
        for n in 0..<400 {
            let fixture = try ImageFixture()
            let path = fixture.path("a")
            let node = try fileNode(path, creates: true)
            var options = Qcow2Create.Options(diskByteCount: UInt64(Self.diskByteCount))
            options.clusterByteCount = test.clusterByteCount
            options.hasExtendedL2 = test.hasExtendedL2
            try Qcow2Create.write(options, into: node)
            try node.driver.close()
            let faulty = FaultyDriver(try PlainFile(path: path))
            var driver = try openImage(BlockNode(name: "file", driver: faulty))
            var model = ImageModel(
                disk: [UInt8](repeating: 0, count: Self.diskByteCount), clusterByteCount: Int(test.clusterByteCount))
            for operation: ImageOperation in [
                .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<30_000, seed: 2),
                .create(state: nil), .write(20_000..<40_000, seed: 3), .flush,
            ] {
                try model.apply(operation, to: &driver) { $0 }
            }
            let before = model
            let note = "\(test.name), call \(n)\(andAllAfter ? " and all after it" : "")"
            faulty.fail(call: n, andAllAfter: andAllAfter)
            do {
                try model.apply(test.operation, to: &driver) { $0 }
                if faulty.callCount <= n {
                    #expect(n >= test.callCountAtLeast, "\(test.name) made \(faulty.callCount) calls")
                    return
                }
                // A failure that only leaks, or that was worked around.
                faulty.heal()
                try model.expectEqual(driver, note)
            } catch {
                faulty.heal()
                if test.isAtomic { try before.expectEqual(driver, note) }
            }
            // The image goes on working, with the state that was being stored left behind. What a failed call has written
            // is not taken for zeros.
            try driver.writeBytes([1, 2, 3], at: 7)
            #expect(try driver.readBytes(7, 3) == [1, 2, 3])
            let end = driver.byteCount - 512
            try driver.writeZeroes(at: driver.byteCount - 2048, byteCount: 2048, flags: .mayUnmap)
            try driver.writeBytes([4], at: end)
            #expect(try driver.readBytes(end - 1536, 2048).filter { $0 != 0 } == [4], "\(note)")
            let content = try driver.readBytes(0, Int(driver.byteCount))
            try driver.close()
            #expect(try fixture.content(path) == content, "\(note)")
            // What could not be given back is leaked.
            if test.isAtomic, !andAllAfter {
                try fixture.expectClean(path, note)
            } else {
                try fixture.expectNoErrors(path, note)
            }
        }
        Issue.record("\(test.name) makes more than 400 calls")
    }
}
