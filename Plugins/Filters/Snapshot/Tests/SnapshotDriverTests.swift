import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import SnapshotFilter

/// A lease on a disk in memory that counts how often it was released.
private final class CountedLease: SnapshotLease {
    let disk: any BlockDriver
    let vmState: (any VMStateReader)? = nil
    let releases = Locked(0)
    init(_ disk: any BlockDriver) { self.disk = disk }
    func release() { releases.withLock { $0 += 1 } }
}

@Suite struct SnapshotDriverTests {
    private let lease: CountedLease
    private let driver: SnapshotDriver

    init() throws {
        let disk = MemoryFile()
        disk.replace(with: [UInt8](repeating: 7, count: 4096))
        lease = CountedLease(disk)
        driver = SnapshotDriver(lease, below: BlockNode(name: "below", driver: MemoryFile()))
    }

    @Test func showsTheSnapshotAndNothingElse() throws {
        #expect(driver.byteCount == 4096)
        #expect(try driver.readBytes(100, 1000) == [UInt8](repeating: 7, count: 1000))
        #expect(try driver.extents(at: 0, byteCount: 4096, limit: 8).map(\.byteCount) == [4096])
    }

    @Test func takesNoChange() throws {
        #expect(driver.isReadOnly)
        #expect(throws: ColdframeError.self) { try driver.writeBytes([1], at: 0) }
        #expect(throws: ColdframeError.self) { try driver.writeZeroes(at: 0, byteCount: 1, flags: []) }
        #expect(throws: ColdframeError.self) { try driver.discard(at: 0, byteCount: 1) }
    }

    @Test func theLeaseLastsAsLongAsTheNode() throws {
        #expect(lease.releases.withLock { $0 } == 0)
        try driver.close()
        #expect(lease.releases.withLock { $0 } == 1)
    }
}
