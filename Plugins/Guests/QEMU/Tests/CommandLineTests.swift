import ColdframeKit
import QMPWire
import Testing

@testable import QEMUGuest

@Suite struct CommandLineTests {
    private func line(_ user: [String], server: String = "/run/d.sock") throws -> QEMUCommandLine {
        try QEMUCommandLine(
            user: user, name: "web1", disks: [.init(name: "disk0", isReadOnly: false)], diskServerPath: server,
            monitorPath: "/run/a,b.qmp")
    }

    @Test func theUsersWordsComeFirstAndUnchanged() throws {
        let user = ["qemu", "-S", "-qmp", "stdio"]
        #expect(try line(user).words.prefix(4) == user[...])
    }

    @Test func aGuestWithoutANameGetsOne() throws {
        let unnamed = try line(["qemu"]).words
        let named = try line(["qemu", "-name", "mine"]).words
        #expect(unnamed.contains("web1"))
        #expect(!named.contains("web1"))
    }

    @Test func disksAndBarrierAreNBDNodesThatReconnect() throws {
        let words = try line(["qemu"], server: "/run/d,e\"f.sock").words
        let nodes = try zip(words, words.dropFirst()).filter { $0.0 == "-blockdev" }.map { try JSONParser.parse($0.1) }
        #expect(nodes.map { $0["node-name"] } == ["disk0", "coldframe-barrier"])
        #expect(nodes.map { $0["reconnect-delay"] } == [300, 1])
        #expect(nodes[0]["server"]?["path"] == "/run/d,e\"f.sock")
    }

    @Test func aCommaInTheMonitorsPathIsDoubled() throws {
        let words = try line(["qemu"]).words
        #expect(words.contains { $0.contains("path=/run/a,,b.qmp,") })
    }

    @Test(arguments: [
        [], [""], ["qemu", "-daemonize"], ["qemu", "-incoming", "defer"], ["qemu", "--loadvm", "t"],
        ["qemu", "-blockdev", "driver=null-co,node-name=disk0"],
        ["qemu", "-blockdev", "{\"driver\":\"null-co\",\"node-name\":\"coldframe-barrier\"}"],
        ["qemu", "-chardev", "null,id=coldframe-qmp"],
    ])
    func whatTheAgentSaysItselfIsRefused(_ user: [String]) {
        #expect(throws: ColdframeError.self) { try line(user) }
    }
}
