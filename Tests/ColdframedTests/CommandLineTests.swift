import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import coldframed

@Suite struct CommandLineTests {
    @Test func optionsKeepTheirOrder() throws {
        let plan = try parse(
            "--chardev", "socket,id=c,path=/tmp/s,server=on,wait=off", "--monitor", "c",
            "--blockdev", "driver=file,node-name=f,filename=/x",
            "--nbd-server", "addr.type=unix,addr.path=/tmp/n", "--export", "nbd,id=e,node-name=f",
            "--blockdev", "{\"driver\": \"raw\", \"node-name\": \"r\", \"file\": \"f\"}", "--pidfile", "/tmp/p",
            "--name", "web1")
        #expect(
            plan.steps.map(\.action.kind) == ["chardev", "monitor", "blockdev", "nbd-server", "export", "blockdev"])
        #expect(plan.pidFile == "/tmp/p")
        #expect(plan.name == "web1")
        #expect(plan.request == .run)
    }

    @Test func bothFormsOfABlockdevAreTheSame() throws {
        let plan = try parse(
            "--blockdev", "file,node-name=f,filename=/x,,y,read-only=on,cache.direct=on",
            "--blockdev",
            "{\"driver\":\"file\",\"node-name\":\"f\",\"filename\":\"/x,y\",\"read-only\":true,\"cache\":{\"direct\":true}}"
        )
        guard case .addBlockdev(let one) = plan.steps[0].action, case .addBlockdev(let other) = plan.steps[1].action
        else {
            Issue.record("two block devices")
            return
        }
        #expect(one.json == other.json)
        #expect(one.readOnly == true)
    }

    @Test func theNbdServerIsTheCommands() throws {
        let plan = try parse("--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=10809,max-connections=3")
        guard case .startNBDServer(let arguments) = plan.steps[0].action else {
            Issue.record("an NBD server")
            return
        }
        #expect(
            JSONValue.object(arguments) == [
                "addr": ["type": "inet", "data": ["host": "localhost", "port": "10809"]], "max-connections": 3,
            ])
    }

    @Test func valuesMayBeAttached() throws {
        #expect(try parse("--pidfile=/a=b").pidFile == "/a=b")
        #expect(try parse("--help", "rubbish").request == .showHelp)
        #expect(try parse("-V").request == .showVersion)
    }

    @Test(
        arguments: [
            (["--zz"], "unrecognized option '--zz': see --help"),
            (["foo"], "foo: Unexpected argument"),
            (["--blockdev"], "option '--blockdev' requires an argument"),
            (["--help=3"], "option '--help' doesn't allow an argument"),
            (["--blockdev", "driver=file"], "--blockdev driver=file: Parameter 'filename' is missing"),
            (
                ["--blockdev", "driver=zz,node-name=a"],
                "--blockdev driver=zz,node-name=a: Parameter 'driver' does not accept value 'zz'"
            ),
            (["--blockdev", "{bad"], "--blockdev {bad: JSON parse error, invalid keyword 'bad'"),
            (
                ["--blockdev", "driver=file,filename=x,foo=1"],
                "--blockdev driver=file,filename=x,foo=1: Parameter 'foo' is unexpected"
            ),
            (
                ["--blockdev", "file,filename=x,read-only=maybe"],
                "--blockdev file,filename=x,read-only=maybe: Parameter 'read-only' expects 'on' or 'off'"
            ),
            (["--export", "nbd,id=a"], "--export nbd,id=a: Parameter 'node-name' is missing"),
            (
                ["--nbd-server", "addr.type=unix"],
                "--nbd-server addr.type=unix: Parameter 'addr.path' is missing"
            ),
            (
                ["--nbd-server", "addr.type=unix,addr.path=/n,max-connections=x"],
                "--nbd-server addr.type=unix,addr.path=/n,max-connections=x: Parameter 'max-connections' expects integer"
            ),
            (
                ["--object", "foo,id=1"],
                "--object foo,id=1: Parameter 'qom-type' does not accept value 'foo'"
            ),
            (
                ["--daemonize"],
                "--daemonize is not supported: start it under systemd, or put '&' behind the command"
            ),
            (
                ["--name", "../x"],
                "--name ../x: A name has at most 64 letters, digits, '-', '_' and '.', and begins with a letter or digit"
            ),
        ] as [([String], String)])
    func refusalsAreQEMUsWhereItHasThem(_ arguments: [String], _ expected: String) {
        BranchTable.install(Modules.all.map(\.schema))
        let error = #expect(throws: StartupError.self) { try CommandLineParser.parse(arguments: arguments) }
        #expect(error?.description == expected)
    }

    @Test func twoNamesContradict() {
        #expect(refusal("--name", "a", "--name", "b")?.hasSuffix("The agent already has the name 'a'") == true)
    }
}

@Suite struct ChardevTests {
    private func backend(_ text: String) throws -> ChardevOptions.Backend? {
        guard case .addChardev(let options) = try parse("--chardev", text).steps[0].action else { return nil }
        return options.backend
    }

    @Test func kinds() throws {
        #expect(try backend("stdio,id=c") == .standardStreams)
        #expect(try backend("socket,id=c,path=/s") == .unixSocket(path: "/s", .client))
        #expect(try backend("socket,id=c,path=/s,server=on") == .unixSocket(path: "/s", .server(waits: true)))
        #expect(
            try backend("socket,id=c,host=localhost,port=4444,server=on,wait=off")
                == .tcpSocket(host: "localhost", port: 4444, .server(waits: false)))
    }

    @Test func shortSwitches() throws {
        #expect(try backend("socket,id=c,path=/s,server,nowait") == .unixSocket(path: "/s", .server(waits: false)))
        #expect(try backend("socket,id=c,path=/s,,server") == .unixSocket(path: "/s,server", .client))
    }

    @Test(arguments: [
        ("socket,path=/s", "chardev: no id specified"),
        ("bogus,id=a", "'bogus' is not a valid char driver name: use socket or stdio"),
        ("socket,id=a", "chardev: socket: one of 'path' and 'host' is required"),
        ("socket,id=a,path=/s,host=h,port=1", "chardev: socket: one of 'path' and 'host' is required"),
        ("socket,id=a,host=h", "chardev: socket: no port given"),
        ("socket,id=a,host=h,port=65536", "Parameter 'port' expects a number from 0 to 65535"),
        ("socket,id=a,path=/s,server=maybe", "Parameter 'server' expects 'on' or 'off'"),
        ("socket,id=a,path=/s,wait=off", "'wait' option is incompatible with socket in client connect mode"),
        ("socket,id=a,path=/s,telnet=on", "Parameter 'telnet' is unexpected"),
    ])
    func refusals(_ text: String, _ expected: String) {
        #expect(refusal("--chardev", text) == "--chardev \(text): \(expected)")
    }

    @Test func aPathThatDoesNotFit() {
        let path = "/" + String(repeating: "x", count: 107)
        #expect(
            refusal("--chardev", "socket,id=a,path=\(path)")?.hasSuffix(
                "UNIX socket path '\(path)' is too long: Path must be less than 108 bytes") == true)
    }

    @Test func idsAndStandardStreamsAreThereOnce() {
        #expect(
            refusal("--chardev", "stdio,id=a", "--chardev", "socket,id=a,path=/s")?.hasSuffix(
                "Duplicate ID 'a' for chardev")
                == true)
        #expect(
            refusal("--chardev", "stdio,id=a", "--chardev", "stdio,id=b")?.hasSuffix(
                "cannot use stdio by multiple character devices") == true)
    }
}

@Suite struct MonitorOptionTests {
    @Test func aMonitorFindsItsChardev() throws {
        let plan = try parse("--chardev", "stdio,id=c", "--monitor", "c,id=m,pretty,mode=control")
        guard case .addMonitor(let options) = plan.steps[1].action else {
            Issue.record("a monitor")
            return
        }
        #expect(options == MonitorOptions(id: "m", chardev: "c", isPretty: true))
    }

    @Test func aChardevMustComeBefore() {
        #expect(
            refusal("--monitor", "c", "--chardev", "stdio,id=c")
                == "--monitor c: chardev \"c\" not found: give its --chardev before")
    }

    @Test func idsAreUnique() {
        #expect(
            refusal(
                "--chardev", "socket,id=a,path=/a", "--chardev", "socket,id=b,path=/b", "--monitor", "a,id=m",
                "--monitor", "b,id=m")?.hasSuffix("Duplicate ID 'm' for monitor") == true)
    }

    @Test func aChardevServesOneMonitor() {
        #expect(
            refusal("--chardev", "stdio,id=c", "--monitor", "c", "--monitor", "c")
                == "--monitor c: Device 'c' is in use")
    }

    @Test func onlyControlMode() {
        #expect(
            refusal("--chardev", "stdio,id=c", "--monitor", "c,mode=readline")?.contains("Only QMP is supported")
                == true)
        #expect(
            refusal("--chardev", "stdio,id=c", "--monitor", "c,mode=zz")?.contains("does not accept value 'zz'") == true
        )
    }
}
