import Testing

@testable import QEMUGuest

@Suite struct ReplacementCommandLineTests {
    private func line(_ words: String...) -> ReplacementCommandLine {
        ReplacementCommandLine(user: ["qemu"] + words, slot: 1)
    }

    @Test(arguments: [
        ["-m", "64", "-nographic"], ["-chardev", "null,id=a", "-serial", "chardev:a"], ["-serial", "none"],
        ["-netdev", "user,id=n"], ["-netdev", "tap,id=n,script=no"], ["-nic", "none"], ["-vnc", "none"],
        ["-chardev", "file,id=a,path=/x,append=on"], ["-device", "virtio-net-pci,netdev=n"], ["-display", "none"],
        ["-object", "memory-backend-file,id=m,size=1G,mem-path=/x,share=off"],
        ["-object", "{\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":1}"], ["-monitor", "stdio"],
    ])
    func whatTwoCanHaveStaysAsItIs(_ words: [String]) {
        let line = ReplacementCommandLine(user: words, slot: 0)
        #expect(line.blockers == [] && line.words == words)
    }

    @Test(arguments: [
        (["-chardev", "file,id=a,path=/x"], "append=on"), (["-serial", "file:/x"], "append=on"),
        (["-netdev", "user,id=n,hostfwd=tcp::22-:22"], "hostfwd"), (["--vnc", ":1"], "listens"),
        (["-netdev", "{\"type\":\"tap\",\"id\":\"n\",\"ifname\":\"tap0\"}"], "ifname"),
        (["-netdev", "socket,id=n,listen=:1"], "connection"),
        (["-chardev", "socket,id=a,host=h,port=1,server=on"], "port"),
        (["-chardev", "socket,id=a,path=/swtpm"], "server"), (["-tpmdev", "emulator,id=t,chardev=a"], "TPM"),
        (["-monitor", "tcp::1,server=on"], "unix socket"), (["-gdb", "tcp::1"], "unix socket"), (["-s"], "port"),
        (["-pidfile", "/x"], "locked"), (["-D", "/x"], "cut"), (["-device", "vfio-pci,host=1"], "host's"),
        (["-object", "memory-backend-file,id=m,mem-path=/x,share=on"], "share=off"), (["-readconfig", "/x"], "hides"),
        (["-object", "{\"qom-type\":\"memory-backend-file\",\"id\":\"m\",\"share\":true}"], "share=off"),
        (["-object", "filter-dump,id=f,netdev=n,file=/x"], "cut"),
        (["-chardev", "socket,id=a,path=x,server=on"], "absolute"),
        (["-chardev", "null,id=a,logfile=/x"], "logappend"), (["-display", "vnc=:1"], "listens"),
    ])
    func whatOneOfThemMustHaveAloneIsNamedWithAdvice(_ words: [String], _ advice: String) {
        let blockers = ReplacementCommandLine(user: words, slot: 0).blockers
        #expect(blockers.count == 1 && blockers[0].contains(advice), "\(blockers)")
    }

    @Test func socketsListenUnderAnotherName() {
        let made = line(
            "-chardev", "socket,id=a,path=/run/a,,b,server=on,wait=on", "-qmp", "unix:/run/q,server,nowait", "-serial",
            "mon:unix:/run/m,server=on")
        #expect(made.blockers == [])
        #expect(
            made.words == [
                "qemu", "-chardev", "socket,id=a,path=/run/a,,b,server=on,wait=on,path=/run/a,,b.1,wait=off", "-qmp",
                "unix:/run/q.1,server=on,wait=off", "-serial", "mon:unix:/run/m.1,server=on,wait=off",
            ])
    }

    @Test func everythingIsSaidAtOnce() {
        #expect(line("-s", "-vnc", ":0", "-chardev", "file,id=a,path=/x").blockers.count == 3)
    }
}
