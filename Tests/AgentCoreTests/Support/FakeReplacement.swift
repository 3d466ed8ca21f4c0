import ColdframeKit
import LinuxSystem

/// A second process of a `FakeGuest`: it takes what it is fed, and writes down in the first one's log what is asked of it.
@AgentActor
final class FakeReplacement: GuestReplacement {
    nonisolated let stream: Descriptor
    private let readEnd: Descriptor
    private let old: FakeGuest
    private let successor: FakeGuest
    private let reading: Task<[UInt8], Never>
    /// What came through the stream, once it has ended.
    private(set) var state: [UInt8] = []
    private(set) var hasDisks = false

    init(of old: FakeGuest) throws {
        self.old = old
        successor = FakeGuest(disks: old.diskNodeNames, slot: old.freeSlot)
        successor.state = .stopped("paused")
        let (readEnd, writeEnd) = try UnixSocket.pair()
        try writeEnd.setNonBlocking(true)
        stream = writeEnd
        self.readEnd = readEnd
        reading = Task.detached {
            await BlockingPool.shared.run {
                var bytes: [UInt8] = []
                let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
                defer { scratch.deallocate() }
                while let count = try? readEnd.read(into: scratch), count > 0 {
                    bytes += UnsafeRawBufferPointer(rebasing: scratch[..<count])
                }
                return bytes
            }
        }
    }

    func loaded() async throws {
        state = await reading.value
        old.log.append("loaded")
        try await old.at("loaded")
    }

    func passDisks() throws {
        old.log.append("pass")
        if let failure = old.passFailure { throw failure }
        hasDisks = true
    }

    func takeDisksBack() {
        old.log.append("take back")
        hasDisks = false
    }

    func takePlace() -> any Guest {
        old.log.append("take place")
        successor.at = old.at
        return successor
    }

    func endPredecessor() async throws {
        old.log.append("end old")
        old.state = .gone("ended")
        try await old.at("end old")
    }

    func abandon() async {
        old.log.append("abandon")
        stream.close()
        try? readEnd.shutdown(.both)
    }
}
