import ColdframeKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// A real machine's state, stored by us and loaded by QEMU.
@Suite struct LoadVMTests {
    @Test(arguments: [65536, 4096] as [UInt64]) func qemuLoadsAStateThatWasStoredHere(clusterByteCount: UInt64) throws {
        guard try hasQEMU() else {
            print("skipped: qemu-system-x86_64 is not installed")
            return
        }
        let fixture = try ImageFixture()
        let path = fixture.path("a.qcow2")
        try createImage(path, byteCount: 8 << 20, clusterByteCount: clusterByteCount)
        let machine = ["-machine", "pc-i440fx-7.2", "-m", "32", "-nodefaults", "-display", "none", "-S"]
        let saved = fixture.path("stream")
        let output = try monitor(
            fixture, machine + ["-drive", "file=\(path),if=ide,format=qcow2,id=d0"],
            ["migrate \"exec:cat > \(saved)\"", "info migrate"])
        #expect(output.contains("completed"), "\(output)")
        let stream = try Files.readAll(saved, limit: 1 << 28)
        #expect(stream.count > 1000)

        let disk = try openImage(path)
        try disk.writeBytes([1, 2, 3], at: 1000)
        _ = try disk.createSnapshot(request("live"))
        let writer = try disk.beginVMState()
        try stream.withUnsafeBytes { try writer.append($0) }
        _ = try writer.attach(toSnapshot: "1", annotation: Array("set".utf8), guestClockNanoseconds: 1)
        try disk.writeBytes([9, 9, 9], at: 1000)
        try disk.close()
        try fixture.expectClean(path)

        let loaded = try monitor(
            fixture, machine + ["-drive", "file=\(path),if=ide,format=qcow2,id=d0", "-loadvm", "live"], ["info status"])
        #expect(loaded.contains("VM status"), "\(loaded)")
        #expect(!loaded.lowercased().contains("error"), "\(loaded)")
        try fixture.expectClean(path)
        // QEMU rewound the disk and kept what we store beside the snapshot.
        let again = try openImage(path)
        #expect(try again.readBytes(1000, 3) == [1, 2, 3])
        #expect(again.snapshots.first?.annotation == Array("set".utf8))
        #expect(again.snapshots.first?.vmStateByteCount == UInt64(stream.count))
        try again.deleteSnapshot(id: "1")
        try again.close()
        try fixture.expectClean(path)
    }

    @Test func aStateThatQEMUSavedIsReadAndLoadsAgain() throws {
        guard try hasQEMU() else { return }
        let fixture = try ImageFixture()
        let path = fixture.path("a.qcow2")
        try createImage(path, byteCount: 8 << 20)
        let machine = [
            "-machine", "pc-i440fx-7.2", "-m", "32", "-nodefaults", "-display", "none", "-S", "-drive",
            "file=\(path),if=ide,format=qcow2,id=d0",
        ]
        _ = try monitor(fixture, machine, ["savevm theirs"])
        try fixture.expectClean(path)
        let disk = try openImage(path)
        let info = try #require(disk.snapshots.first)
        #expect(info.name == "theirs")
        #expect(info.vmStateByteCount > 1000)
        let reader = try disk.openVMState(ofSnapshot: info.id)
        var magic = [UInt8](repeating: 0, count: 4)
        try magic.withUnsafeMutableBytes { try reader.read(into: $0, at: 0) }
        #expect(magic == Array("QEVM".utf8))
        try disk.writeBytes([1], at: 0)
        try disk.revert(toSnapshot: info.id)
        try disk.close()
        try fixture.expectClean(path)
        let loaded = try monitor(fixture, machine + ["-loadvm", "theirs"], ["info status"])
        #expect(!loaded.lowercased().contains("error"), "\(loaded)")
    }

    private func hasQEMU() throws -> Bool {
        let fixture = try ImageFixture()
        return (try? fixture.runAny("qemu-system-x86_64", ["--version"]).status) == 0
    }

    /// Runs QEMU with these lines on its monitor, then `quit`; what it printed.
    private func monitor(_ fixture: ImageFixture, _ arguments: [String], _ lines: [String]) throws -> String {
        let script = fixture.path("script")
        try Files.replaceAtomically(script, contents: Array((lines + ["quit", ""]).joined(separator: "\n").utf8))
        let quoted = arguments.map { "'\($0)'" }.joined(separator: " ")
        return try fixture.runAny(
            "sh", ["-c", "exec timeout 60 qemu-system-x86_64 \(quoted) -monitor stdio < '\(script)'"]
        ).output
    }
}
