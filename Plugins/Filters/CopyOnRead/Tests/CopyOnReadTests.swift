import BlockCopying
import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import CopyOnReadFilter

/// What only this filter does; what every filter must do is tested by Tests/Conformance, without a word here.
@Suite struct CopyOnReadTests {
    private static let size = 10 * 4096 + 100
    private let below: [UInt8] = (0..<Self.size).map { $0 / 4096 == 6 ? 0 : UInt8(truncatingIfNeeded: $0 / 7 | 1) }

    private func check(_ filter: CopyOnReadDriver, _ range: Range<Int>) throws {
        #expect(try filter.readBytes(UInt64(range.lowerBound), range.count) == Array(below[range]))
    }

    @Test func theClustersThatAreReadAreKept() throws {
        let disk = LayeredDisk(below: below)
        let node = BlockNode(name: "disk", driver: disk)
        let filter = CopyOnReadDriver(node)
        try check(filter, 4097..<4098)
        #expect(disk.allocated == [1])
        try check(filter, 0..<1)
        try check(filter, 3 * 4096 - 1..<4 * 4096 + 1)
        #expect(disk.allocated == [0, 1, 2, 3, 4])
        // The last one is short.
        try check(filter, Self.size - 1..<Self.size)
        #expect(disk.allocated == [0, 1, 2, 3, 4, 10])
        let writes = disk.now.writes
        try check(filter, 0..<5 * 4096)
        #expect(disk.now.writes == writes)
        try check(filter, 0..<Self.size)
        #expect(disk.allocated == Array(0...10) && disk.now.bytes == below)
    }

    @Test func zerosAreKeptAsZeros() throws {
        let disk = LayeredDisk(below: below)
        let filter = CopyOnReadDriver(BlockNode(name: "disk", driver: disk))
        try check(filter, 6 * 4096 + 1..<6 * 4096 + 2)
        #expect(disk.allocated == [6] && disk.now.zeroings == 1 && disk.now.writes == 0)
    }

    @Test func aCopyIsNoWriteOfTheDisk() throws {
        let disk = LayeredDisk(below: below)
        let node = BlockNode(name: "disk", driver: disk)
        let filter = CopyOnReadDriver(node)
        try check(filter, 0..<Self.size)
        #expect(node.body.watch.highestWriteEnd == 0)
        try filter.writeBytes([1], at: 9)
        #expect(node.body.watch.highestWriteEnd == 10)
    }

    @Test func onlyWhatLiesAboveTheBottomIsKept() throws {
        let (disk, middle) = (LayeredDisk(below: below), LayeredDisk(below: below))
        try middle.writeBytes(Array(below[8192..<16384]), at: 8192)
        let filter = CopyOnReadDriver(
            BlockNode(name: "disk", driver: disk),
            below: LayerAllocation(layers: [BlockNode(name: "middle", driver: middle)]))
        try check(filter, 0..<Self.size)
        #expect(disk.allocated == [2, 3])
        // The disk is its own bottom: nothing is to be copied.
        let none = CopyOnReadDriver(BlockNode(name: "disk", driver: disk), below: LayerAllocation(layers: []))
        try check(none, 0..<Self.size)
        #expect(disk.allocated == [2, 3])
    }

    @Test func filtersInBetweenHoldNothing() throws {
        let disk = LayeredDisk(below: below)
        let inner = CopyOnReadDriver(BlockNode(name: "disk", driver: disk), below: LayerAllocation(layers: []))
        let filter = CopyOnReadDriver(BlockNode(name: "inner", driver: inner))
        try check(filter, 4096..<4097)
        #expect(disk.allocated == [1])
    }

    @Test func aNodeThatCannotBeWrittenIsOnlyRead() throws {
        let disk = LayeredDisk(below: below, isReadOnly: true)
        try check(CopyOnReadDriver(BlockNode(name: "disk", driver: disk)), 0..<Self.size)
        #expect(disk.allocated == [])
    }

    @Test func aCopyThatFailsIsAFailedRead() throws {
        for call in 0..<4 {
            let disk = LayeredDisk(below: below)
            let filter = CopyOnReadDriver(BlockNode(name: "disk", driver: disk))
            // Something in each part, so that each is copied by itself.
            for cluster in [2, 4, 7] { try disk.writeBytes([below[cluster * 4096]], at: UInt64(cluster * 4096)) }
            disk.fail(call: 3 + call)
            #expect(throws: ColdframeError.self) { try filter.readBytes(0, Self.size) }
            #expect(disk.now.bytes == below)
            disk.fail(call: .max)
            // Nothing is held any more.
            try check(filter, 0..<Self.size)
        }
    }

    @Test func longReadsAreCopiedInPieces() throws {
        let long = [UInt8](repeating: 7, count: 5 << 20)
        let disk = LayeredDisk(below: long)
        let filter = CopyOnReadDriver(BlockNode(name: "disk", driver: disk))
        #expect(try filter.readBytes(0, long.count) == long)
        #expect(disk.now.writes == 5 && disk.allocated.count == 5 << 8)
    }

    /// A copy of what was there before must not come after the write.
    @Test func aWriteIsNotUndoneByACopy() async throws {
        for round in 0..<20 {
            let disk = LayeredDisk(below: below, readMicroseconds: 200)
            let filter = CopyOnReadDriver(BlockNode(name: "disk", driver: disk))
            let new = [UInt8](repeating: UInt8(100 + round), count: 4096)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for cluster in 0..<10 {
                    group.addTask {
                        try await BlockingPool.shared.run {
                            _ = try filter.readBytes(UInt64(cluster * 4096 + 10), 100)
                        }
                    }
                    group.addTask {
                        try await BlockingPool.shared.run {
                            try filter.writeBytes(new, at: UInt64(cluster * 4096))
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(disk.now.bytes[..<40960].allSatisfy { $0 == UInt8(100 + round) })
        }
    }
}
