import ColdframeKit
import LinuxSystem
import Synchronization
import Testing

@testable import Qcow2Format

@Suite struct ConcurrencyTests {
    /// Writers own a stripe of every cluster each; zeroing, discards, flushes and a state go on between them.
    @Test func everythingAtOnceKeepsEveryByteAndLeavesNoLeak() throws {
        let fixture = try ImageFixture()
        let path = fixture.path("a")
        try createImage(path, byteCount: 32 << 20, clusterByteCount: 4096)
        let disk = try openImage(
            try fileNode(path), l2CacheByteLimit: 1)  // The least there is: slices are evicted all the time.
        let base = pattern(1 << 20, 77)
        try disk.writeBytes(base, at: 24 << 20)
        let info = try disk.createSnapshot(request("before"))
        let view = try disk.openSnapshot(id: info.id)
        let stopped = Atomic<Bool>(false)

        let state = try SystemThread.start(name: "state") {
            record {
                for round in 0..<4 {
                    let writer = try disk.beginVMState()
                    let bytes = pattern(700_000, UInt64(round))
                    for _ in 0..<4 { try bytes.withUnsafeBytes { try writer.append($0) } }
                    if round == 3 {
                        _ = try writer.attach(toSnapshot: info.id, annotation: [], guestClockNanoseconds: 0)
                    } else {
                        try writer.abandon()
                    }
                }
            }
        }
        let trimmer = try SystemThread.start(name: "trimmer") {
            record {
                var generator = SeededGenerator(seed: 99)
                while !stopped.load(ordering: .relaxed) {
                    let offset = UInt64.random(in: 0..<2048, using: &generator) * 4096 + (8 << 20)
                    try disk.writeBytes([UInt8](repeating: 0x55, count: 8192), at: offset)
                    try disk.discard(at: offset, byteCount: 12_288)
                    try disk.writeZeroes(at: offset + 4096, byteCount: 6000, flags: .mayUnmap)
                    try disk.flush()
                    #expect(try view.readBytes(24 << 20, 8192) == Array(base[..<8192]))
                }
            }
        }
        let writers = try (0..<4).map { worker in
            try SystemThread.start(name: "writer\(worker)") { record { try writeStripe(disk, worker) } }
        }
        for writer in writers { writer.join() }
        stopped.store(true, ordering: .relaxed)
        trimmer.join()
        state.join()
        for worker in 0..<4 {
            for cluster in 0..<1024 {
                let bytes = try disk.readBytes(UInt64(cluster) * 4096 + UInt64(worker) * 1024, 1024)
                #expect(Set(bytes) == [UInt8(worker + 1)])
            }
        }
        #expect(try disk.readBytes(24 << 20, base.count) == base)
        try disk.deleteSnapshot(id: info.id)
        try disk.close()
        try fixture.expectClean(path)
    }

    private func record(_ body: () throws -> Void) {
        do { try body() } catch { Issue.record(error) }
    }

    private func writeStripe(_ disk: Qcow2Driver, _ worker: Int) throws {
        var order = Array(0..<1024)
        var generator = SeededGenerator(seed: UInt64(worker))
        order.shuffle(using: &generator)
        let bytes = [UInt8](repeating: UInt8(worker + 1), count: 1024)
        for cluster in order {
            let offset = UInt64(cluster) * 4096 + UInt64(worker) * 1024
            try disk.writeBytes(bytes, at: offset)
            #expect(try disk.readBytes(offset, 1024) == bytes)
        }
    }
}
