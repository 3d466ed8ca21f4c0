import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import QEMUGuest

/// A real QEMU under TCG whose disk holds one sector that counts in RAM for ever.
@AgentActor
final class SpinningGuest {
    let folder: String
    let host: GuestHost
    let guest: any Guest
    /// The user's words.
    let command: [String]

    /// Real mode: clear AX, DS; increment the doubleword at 0x8000; jump back.
    private static let bootCode: [UInt8] = [0x31, 0xC0, 0x8E, 0xD8, 0x66, 0xFF, 0x06, 0x00, 0x80, 0xEB, 0xF9]

    nonisolated static let command = [
        "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none",
        "-device", "virtio-blk-pci,drive=disk0",
    ]

    /// RAM with content, so that a stream is longer than a socket's buffer and blocks if nobody reads.
    private static let filledByteCount = 32 << 20

    private init(folder: String, host: GuestHost, guest: any Guest, command: [String]) {
        self.command = command
        self.folder = folder
        self.host = host
        self.guest = guest
    }

    /// Starts it; with `waits` it counts when this returns.
    static func start(_ command: [String] = command, waits: Bool = true) async throws -> SpinningGuest {
        let folder = try Files.temporaryDirectory(prefix: "cf-guest")
        do {
            var image = bootCode + [UInt8](repeating: 0, count: (1 << 20) - bootCode.count)
            image[510] = 0x55
            image[511] = 0xAA
            try Files.replaceAtomically(folder + "/disk0.raw", contents: image)
            try Files.replaceAtomically(
                folder + "/ram.bin", contents: [UInt8](repeating: 0xA5, count: filledByteCount))
            let command = command + ["-device", "loader,file=\(folder)/ram.bin,addr=0x1000000,force-raw=on"]
            let disk = BlockNode(name: "disk0", driver: try PlainFile(path: folder + "/disk0.raw"))
            let host = GuestHost(folder: folder, nodes: [disk])
            let options = GuestOptions(
                driver: "qemu", branch: GuestOptionsQemu(command: command, disks: [.node("disk0")]))
            let guest = try await QEMUGuestModule.module.guests[0].add(options, services: host)
            let spinning = SpinningGuest(folder: folder, host: host, guest: guest, command: command)
            if waits {
                do {
                    try await spinning.waitForProgress()
                } catch {
                    await spinning.end()
                    throw error
                }
            }
            return spinning
        } catch {
            try? Files.removeTree(folder)
            throw error
        }
    }

    /// Runs `body` on a guest that counts; the guest is gone afterwards.
    static func run(
        _ command: [String] = command, waits: Bool = true, _ body: @AgentActor (SpinningGuest) async throws -> Void
    ) async throws {
        let guest = try await start(command, waits: waits)
        do {
            try await body(guest)
        } catch {
            // A guest that has ended says more than the command that failed on it.
            for _ in 0..<50 where guest.host.deathReason == nil { try? await Task.sleep(nanoseconds: 10_000_000) }
            if let reason = guest.host.deathReason { Issue.record("The guest ended: \(reason)") }
            await guest.end()
            throw error
        }
        await guest.end()
    }

    func end() async {
        try? await guest.remove(force: true)
        try? Files.removeTree(folder)
    }

    /// The count in the guest's RAM.
    func count() async throws -> String {
        try await guest.passThrough(
            "human-monitor-command", arguments: ["command-line": "xp /1wx 0x8000"]
        ).stringValue?.split(separator: " ").last.map(String.init) ?? ""
    }

    /// Throws unless the count moves within ten seconds.
    func waitForProgress() async throws {
        let before = try await count()
        for _ in 0..<1000 {
            try await Task.sleep(nanoseconds: 10_000_000)
            let now = try await count()
            if now != before, !now.hasPrefix("0x00000000") { return }
        }
        throw ColdframeError(.timedOut, "The guest stands still")
    }

    func expectAliveAndWell() async throws {
        let state = try await guest.runState()
        #expect(state == .running)
        try await waitForProgress()
        let capabilities = try await guest.passThrough("query-migrate-capabilities", arguments: nil).arrayValue ?? []
        #expect(capabilities.allSatisfy { $0["state"]?.boolValue == false })
        let status = try await guest.passThrough("query-migrate", arguments: nil)["status"]?.stringValue
        #expect(status != "active" && status != "cancelling")
    }

    /// Reads a capture's stream to its end on a thread of its own; the number of bytes.
    nonisolated static func read(_ stream: Descriptor) -> Task<Int, any Error> {
        Task {
            try await BlockingPool.shared.run { () throws(SystemError) in
                let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
                defer { scratch.deallocate() }
                var total = 0
                while true {
                    let count = try stream.read(into: scratch)
                    if count == 0 { return total }
                    total += count
                }
            }
        }
    }
}
