import ColdframeKit
import LinuxSystem
import Testing

@testable import QEMUGuest

/// Memory of huge pages, which a host reserves: enough for one process is not enough for two.
@Suite(.serialized) @AgentActor struct HugePageTests {
    private nonisolated static let reservation = "/proc/sys/vm/nr_hugepages"
    /// Pages of 2 MiB.
    private nonisolated static let guestPageCount = 32

    private nonisolated static func reserved() -> Int? {
        let text = (try? Files.readAll(reservation, limit: 64)).map { String(decoding: $0, as: UTF8.self) }
        return text.flatMap { Int($0.prefix { $0 != "\n" }) }
    }

    /// Whether the host then has so many.
    private nonisolated static func reserve(_ count: Int) -> Bool {
        guard let file = try? Descriptor.open(reservation, [.writeOnly]) else { return false }
        defer { file.close() }
        try? Array("\(count)".utf8).withUnsafeBytes { try file.writeAll($0) }
        return reserved() == count
    }

    private nonisolated static var canReserve: Bool {
        guard reserved() == 0 else { return false }
        defer { _ = reserve(0) }
        return reserve(2 * guestPageCount)
    }

    @Test(.enabled(if: canReserve, "needs root on a host that reserves no huge pages"))
    func aSecondProcessNeedsAsManyHugePages() async throws {
        defer { _ = Self.reserve(0) }
        try #require(Self.reserve(Self.guestPageCount))
        let huge = ["-object", "memory-backend-memfd,id=ram0,size=64M,hugetlb=on", "-machine", "memory-backend=ram0"]
        try await SpinningGuest.run(SpinningGuest.command + huge, waits: false) { spinning in
            let guest = try #require(spinning.guest as? any ReplaceableGuest)
            let blockers = try await guest.replacementBlockers(stateByteCount: 1 << 20)
            #expect(blockers.contains { $0.contains("0 MiB of huge pages free") && $0.contains("needs 64") })
            try #require(Self.reserve(2 * Self.guestPageCount))
            #expect(try await guest.replacementBlockers(stateByteCount: 1 << 20) == [])
        }
    }

    @Test func folders() throws {
        #expect(try !HostMemory.isOfHugePages(path: "/tmp"))
        #expect(throws: SystemError.self) { try HostMemory.isOfHugePages(path: "/no/such/folder") }
        let words = ["-mem-path", "/a", "-object", "memory-backend-file,id=m,mem-path=/b,size=1G"]
        let line = ReplacementCommandLine(user: words, slot: 0)
        #expect(line.memoryPaths == ["/a", "/b"] && !line.takesHugePages && line.blockers == [])
    }
}
