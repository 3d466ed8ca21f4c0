import LinuxSystem
import QMPWire
import Testing

@testable import AgentCore

/// The same bytes to qemu-storage-daemon and to the agent's monitor: the same answers.
@Suite struct SideBySideTests {
    private static let daemon = "/usr/bin/qemu-storage-daemon"

    /// Each followed by a command whose answer shows that the connection still works.
    static let scripts: [[UInt8]] =
        [
            "{}", "[]", "7\n", "'x'\n", "null\n", "{'execute': 1}", "{'execute': 'query-version', 'x': 1}",
            "{'execute': 'query-version', 'arguments': null}", "{'execute': 'query-version', 'arguments': []}",
            "{'execute': 'query-version', 'control': 1}", "{'exec-oob': 'query-version'}",
            "{'execute': 'nothing', 'id': 4}", "{'execute': 'qmp_capabilities', 'id': 5}",
            "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['bogus']}, 'id': 6}",
            "{'execute': 'qmp_capabilities', 'arguments': {'enable': 3}, 'id': 6}",
            "{'execute': 'query-version', 'arguments': {'y': 1}, 'id': 6}",
            "{'execute': 'nothing', 'id': null}", "{'execute': 'nothing', 'id': {'a': [1, 2.5, 'x']}}",
            "{'execute': 'nothing', 'id': 1.0}", "{'execute': 'nothing', 'id': 1e3}",
            "{'execute': 'nothing', 'id': 0.1}", "{'execute': 'nothing', 'id': 1e22}",
            "{'execute': 'nothing', 'id': 18446744073709551615}", "{'execute': 'nothing', 'id': -9223372036854775808}",
            "{'execute': 'nothing', 'id': 18446744073709551616}", "{'execute': 'nothing', 'id': -0}",
            "{'execute': 'nothing', 'id': 01}\n", "{'a': 1, 'a': 2}", "[1, {'b': [{'c': 1, 'c': 1}]}]", "{'a' 1}",
            "{'a': 1 'b': 2}", "[1 2]", "[tru]", "[1,]", "{'a': }", "{1: 2}", "]", "}", ":", ",", "@", "@@ x [",
            "[1}", "{]", "\u{1}", "'\\x'\n", "['\\ud800']", "['\\ud83d\\ude00']", "['\\ufdd0']", "['\\u00']", "[0e1]",
            "[1.]", "[-]", "nul\u{1}", "{'execute': 'nothing', 'id': '\u{e9}\u{1F600}\u{7f}\\u0000\\/'}",
            "{'execute': 'no\u{e9}'}", "'abc\n", "'a\u{1}b'\n", "\u{0}\n",
            String(repeating: "[", count: 1030) + "\n", String(repeating: "[", count: 1024),
            "{'execute': '" + String(repeating: "long", count: 500) + "'}", String(repeating: "z", count: 3000) + "\n",
        ].map { Array($0.utf8) } + [
            [0xFF], [0xFE], [0xFF, 0xFF], Array("{'a': [".utf8) + [0xFF], Array("'abc".utf8) + [0xFE],
            Array("['".utf8) + [0xC3, 0x28] + Array("']".utf8), Array("['".utf8) + [0xC0, 0x80] + Array("']".utf8),
            Array("@".utf8) + [0xC3] + Array("x\n".utf8), Array("['".utf8) + [0xED, 0xA0, 0x80] + Array("']".utf8),
            [0x80, 0x0A], Array("{'execute': 'nothing', 'id': '".utf8) + [0xC0, 0x80] + Array("'}".utf8),
        ]

    @Test(.enabled(if: Files.exists(daemon), "qemu-storage-daemon is not installed"))
    func answersAreTheSame() async throws {
        try await withMonitor { harness in
            let path = harness.path("qsd")
            let pid = try ProcessControl.spawn(
                SpawnRequest(
                    path: Self.daemon,
                    arguments: ["--chardev", "socket,path=\(path),server=on,wait=off,id=c", "--monitor", "chardev=c"]))
            defer {
                try? ProcessControl.signal(pid, 9)
                _ = try? ProcessControl.wait(pid)
            }
            var theirs: RawClient?
            for _ in 0..<500 where theirs == nil {
                theirs = try? RawClient(path: path)
                if theirs == nil { try await Task.sleep(for: .milliseconds(20)) }
            }
            let reference = try #require(theirs)
            let ours = try harness.client()
            for isNegotiated in [false, true] {
                if isNegotiated {
                    for client in [reference, ours] { _ = try await client.call("{'execute': 'qmp_capabilities'}") }
                } else {
                    for client in [reference, ours] { _ = try await client.next() }
                }
                for script in Self.scripts where isNegotiated || !Self.negotiates(script) {
                    let expected = try await answers(reference, script)
                    let got = try await answers(ours, script)
                    #expect(got == expected, "to \(String(decoding: script.prefix(80), as: UTF8.self))")
                }
            }
        }
    }

    private static func negotiates(_ script: [UInt8]) -> Bool {
        script == Array("{'execute': 'qmp_capabilities', 'id': 5}".utf8)
    }

    /// What comes back for a script, up to the answer to a mark behind it. 0xFF ends what the script left open.
    private func answers(_ client: RawClient, _ script: [UInt8]) async throws -> [JSONValue] {
        try await client.send(script + [0xFF] + Array("{'execute': 'mark', 'id': 'mark'}".utf8))
        var collected: [JSONValue] = []
        while let message = try await client.next() {
            if message["id"] == "mark" { return collected }
            collected.append(message)
        }
        Issue.record("no answer to the mark")
        return collected
    }
}
