import ColdframeKit
import LinuxSystem
import Testing

@testable import QEMUGuest

/// What a live capture makes of a real QEMU's huge pages, and how they are made again.
@Suite(.serialized, .enabled(if: ProcessControl.effectiveUserID == 0, "the page map shows frames to root only"))
@AgentActor struct GuestMemoryTests {
    /// RAM that the guest's image fills, and some that it does not touch.
    private static let filledKibibytes = 32 << 10

    @Test func aCaptureSplitsHugePagesAndTheNextOneFindsThemWhole() async throws {
        try await SpinningGuest.run { spinning in
            let processID = Int32(try #require(await spinning.guest.information().pid))
            let capture = try await spinning.guest.beginCapture(way: .live)
            let reader = SpinningGuest.read(capture.stream)
            try await capture.stopped()
            capture.release()
            _ = try await reader.value
            _ = try await capture.finish()
            let residentBefore = try Self.kibibytes("Rss:", of: processID)
            #expect(try Self.kibibytes("AnonHugePages:", of: processID) < Self.filledKibibytes / 2)

            await spinning.guest.prepareCapture(way: .live) { true }
            #expect(try Self.kibibytes("AnonHugePages:", of: processID) < Self.filledKibibytes / 2)
            await spinning.guest.prepareCapture(way: .live) { false }
            #expect(try Self.kibibytes("AnonHugePages:", of: processID) >= Self.filledKibibytes)
            // What the guest never wrote was not allocated: at most the rest of huge pages that it has begun.
            #expect(try Self.kibibytes("Rss:", of: processID) < residentBefore + (16 << 10))
            try await spinning.expectAliveAndWell()
        }
    }

    /// The sum of a number over all areas of the process.
    private static func kibibytes(_ name: String, of processID: Int32) throws -> Int {
        String(decoding: try Files.readAll("/proc/\(processID)/smaps"), as: UTF8.self).split(separator: "\n")
            .filter { $0.hasPrefix(name) }
            .reduce(0) { sum, line in
                let words = line.split(separator: " ")
                return sum + (words.count > 1 ? Int(words[1]) ?? 0 : 0)
            }
    }
}
