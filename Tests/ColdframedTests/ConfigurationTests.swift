import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import coldframed

@Suite struct ConfigurationTests {
    @Test func sectionsAreFollowedInTheirOrder() throws {
        let read = try configuration(
            """
            name = "web1"
            pidfile = "/run/p"
            [[monitor]]
            path = "/run/m"
            [guest]
            driver = "qemu"
            command = ["qemu-system-x86_64"]
            [[snapshot-export]]
            id = "tree"
            mountpoint = "/mnt"
            [[export]]
            type = "nbd"
            id = "e"
            node-name = "d"
            [nbd-server]
            addr = { type = "unix", path = "/run/n" }
            [[blockdev]]
            node-name = "d"
            driver = "file"
            filename = "/x"
            """)
        #expect(read.name == "web1")
        #expect(read.pidFile == "/run/p")
        #expect(
            read.steps.map(\.action.kind)
                == ["blockdev", "nbd-server", "export", "guest", "snapshot-export", "chardev", "monitor"])
        #expect(read.steps[0].location == "t.toml:17")
    }

    @Test func nestedTablesAreNestedOptions() throws {
        let read = try configuration(
            """
            [[blockdev]]
            node-name = "d"
            driver = "raw"
            offset = 9007199254740992
            file = { driver = "file", filename = "/x" }
            """)
        guard case .addBlockdev(let options) = read.steps[0].action else {
            Issue.record("a block device")
            return
        }
        #expect(
            options.json == [
                "driver": "raw", "node-name": "d", "file": ["driver": "file", "filename": "/x"],
                "offset": 9_007_199_254_740_992,
            ])
    }

    @Test(arguments: [
        ("name = ", "t.toml:1: "),
        ("\n\nname = 7", "t.toml:3: 'name' must be a string"),
        ("name = \"/\"", "t.toml:1: A name has at most"),
        ("\nfoo = 1", "t.toml:2: 'foo' means nothing in a configuration"),
        ("[blockdev]\ndriver = \"file\"", "t.toml:1: 'blockdev' is written as [[blockdev]]"),
        ("[[guest]]\ndriver = \"qemu\"", "t.toml:1: 'guest' is written as [guest]"),
        ("[[blockdev]]\ndriver = \"file\"\nnode-name = \"a\"", "t.toml:1: Parameter 'filename' is missing"),
        (
            "[[blockdev]]\ndriver = \"file\"\nfilename = \"/x\"\nfoo = 1", "t.toml:4: Parameter 'foo' is unexpected"
        ),
        (
            "[[blockdev]]\ndriver = \"raw\"\n\nfile = { driver = \"file\", filename = 1 }",
            "t.toml:4: Invalid parameter type for 'file.filename', expected: string"
        ),
        (
            "[[blockdev]]\ndriver = \"file\"\nfilename = 1979-05-27",
            "t.toml:3: 'blockdev[0].filename' is a date or time, which nothing here takes: write it as a string"
        ),
        ("[[monitor]]\nid = \"m\"", "t.toml:1: A monitor needs 'path', or 'port' with perhaps 'host'"),
        ("a = inf", "t.toml:1: 'a' is not a finite number"),
    ])
    func errorsNameTheLine(_ text: String, _ expected: String) {
        let text = refusal(configuration: text)
        #expect(text?.hasPrefix(expected) == true, "\(text ?? "accepted")")
    }

    @Test func anEmptyConfigurationAsksForNothing() throws {
        #expect(try configuration("").steps.isEmpty)
    }

    @Test func itStandsWhereItIsNamed() throws {
        let path = try Files.temporaryDirectory(prefix: "coldframe-config")
        defer { try? Files.removeTree(path) }
        try Files.replaceAtomically(
            path + "/c.toml",
            contents: Array("[[blockdev]]\ndriver = \"file\"\nfilename = \"/x\"\nnode-name=\"a\"".utf8))
        let plan = try parse("--chardev", "stdio,id=c", "--config", path + "/c.toml", "--monitor", "c")
        #expect(plan.steps.map(\.action.kind) == ["chardev", "blockdev", "monitor"])
    }

    @Test func aMissingFile() {
        #expect(
            refusal("--config", "/no/such.toml")
                == "Could not read the configuration '/no/such.toml': No such file or directory")
    }

    @Test func aFileThatIsTooLong() throws {
        let path = try Files.temporaryDirectory(prefix: "coldframe-config")
        defer { try? Files.removeTree(path) }
        try Files.replaceAtomically(path + "/c.toml", contents: [UInt8](repeating: 35, count: (1 << 20) + 1))
        #expect(
            refusal("--config", path + "/c.toml")?.hasPrefix("Could not read the configuration '\(path)/c.toml': ")
                == true)
    }

    @Test func monitorsOfFileAndCommandLineShareTheirNames() throws {
        let path = try Files.temporaryDirectory(prefix: "coldframe-config")
        defer { try? Files.removeTree(path) }
        try Files.replaceAtomically(
            path + "/c.toml", contents: Array("[[monitor]]\nid = \"m\"\npath = \"/run/m\"".utf8))
        #expect(
            refusal("--chardev", "stdio,id=c", "--monitor", "c,id=m", "--config", path + "/c.toml")
                == "\(path)/c.toml:1: Duplicate ID 'm' for monitor")
    }

    @Test func theExampleIsRight() throws {
        // The file of the source tree, from where this file lies.
        let root = Files.parentDirectory(of: Files.parentDirectory(of: Files.parentDirectory(of: #filePath)))
        let text = try Files.readAll(root + "/etc/coldframe/web1.toml")
        let read = try configuration(String(decoding: text, as: UTF8.self))
        #expect(read.name == "web1")
        #expect(
            read.steps.map(\.action.kind)
                == ["blockdev", "blockdev", "guest", "snapshot-export", "chardev", "monitor"])
    }
}
