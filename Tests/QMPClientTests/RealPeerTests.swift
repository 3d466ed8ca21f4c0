import LinuxSystem
import QMPWire
import Testing

@testable import QMPClient

/// Against the servers that the client is for.
@Suite struct RealPeerTests {
    private func withPeer(
        _ program: String, _ arguments: (_ socketPath: String) -> [String],
        _ body: (QMPClient) async throws -> Void
    ) async throws {
        let folder = try Files.temporaryDirectory(prefix: "qmp-client")
        defer { try? Files.removeTree(folder) }
        let path = folder + "/qmp"
        let request = SpawnRequest(path: program, arguments: arguments(path))
        let pid = try ProcessControl.spawn(request)
        defer {
            try? ProcessControl.signal(pid, 9)
            _ = try? ProcessControl.wait(pid)
        }
        var client: QMPClient?
        for _ in 0..<500 where client == nil {
            client = try? QMPClient.connect(path: path)
            if client == nil { try await Task.sleep(for: .milliseconds(20)) }
        }
        try await body(try #require(client))
    }

    private static let daemon = "/usr/bin/qemu-storage-daemon"
    private static let emulator = "/usr/bin/qemu-system-x86_64"

    @Test(.enabled(if: Files.exists(daemon), "qemu-storage-daemon is not installed"))
    func storageDaemon() async throws {
        try await withPeer(Self.daemon) {
            ["--chardev", "socket,path=\($0),server=on,wait=off,id=c", "--monitor", "chardev=c"]
        } _: { client in
            try await client.negotiate(outOfBand: true, timeoutMilliseconds: 20_000)
            let version = try await client.execute("query-version", timeoutMilliseconds: 20_000)
            #expect(version["qemu"]?["major"]?.intValue != nil)
            let expected = QMPError(.commandNotFound, "The command no-such-command has not been found")
            await #expect(throws: QMPClientError.refused(expected)) {
                try await client.execute("no-such-command", timeoutMilliseconds: 20_000)
            }
        }
    }

    @Test(.enabled(if: Files.exists(emulator), "qemu-system-x86_64 is not installed"))
    func emulatorTakesADescriptor() async throws {
        let file = try Descriptor.memoryFile(name: "sent")
        try await withPeer(Self.emulator) {
            ["-M", "none", "-nodefaults", "-display", "none", "-qmp", "unix:\($0),server=on,wait=off"]
        } _: { client in
            try await client.negotiate(timeoutMilliseconds: 20_000)
            let arguments: JSONObject = ["fdname": "f"]
            #expect(
                try await client.execute("getfd", arguments, descriptors: [file.raw], timeoutMilliseconds: 20_000)
                    == [:])
            #expect(try await client.execute("closefd", arguments, timeoutMilliseconds: 20_000) == [:])
        }
    }
}
