import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import QEMUGuest

/// A guest's life beside captures.
@Suite(.serialized) @AgentActor struct GuestLifeTests {
    @Test func itSaysWhatItIs() async throws {
        try await SpinningGuest.run(waits: false) { spinning in
            let identity = try await spinning.guest.machineIdentity()
            #expect(identity.machineType.hasPrefix("pc-q35-"))
            #expect(identity.memoryByteCount == 64 << 20)
            #expect(identity.vmmVersion.split(separator: ".").count == 3)
            #expect(identity.commandLine == spinning.command)
            let information = await spinning.guest.information()
            #expect(information.status == "running")
            #expect(information.disks == ["disk0"])
            #expect(try await spinning.guest.ownCommands().contains("query-status"))
            #expect(try await spinning.guest.ownSchema().count > 100)
        }
    }

    @Test func removalEndsTheProcessAndGivesTheDisksBack() async throws {
        let spinning = try await SpinningGuest.start(waits: false)
        let pid = try #require(await spinning.guest.information().pid)
        try await spinning.guest.remove(force: false)
        #expect(throws: SystemError.self) { try ProcessControl.signal(Int32(pid), 0) }
        #expect(spinning.host.claimCount == 0)
        #expect(spinning.host.privateNodeCount == 0)
        #expect(spinning.host.deathReason == nil)
        try? Files.removeTree(spinning.folder)
    }

    @Test func aCommandLineThatQEMURefusesIsReportedInItsWords() async throws {
        do {
            let spinning = try await SpinningGuest.start(SpinningGuest.command + ["-no-such-option"], waits: false)
            await spinning.end()
            Issue.record("QEMU took it")
        } catch {
            #expect("\(error)".contains("exit status 1"))
            #expect("\(error)".contains("no-such-option"))
        }
    }

    @Test func aGuestThatIsKilledIsReported() async throws {
        try await SpinningGuest.run(waits: false) { spinning in
            let pid = try #require(await spinning.guest.information().pid)
            try ProcessControl.signal(Int32(pid), Signals.kill)
            for _ in 0..<500 where spinning.host.deathReason == nil { try await Task.sleep(nanoseconds: 10_000_000) }
            #expect(spinning.host.deathReason?.hasPrefix("signal 9") == true)
            #expect(spinning.host.claimCount == 0)
            #expect(try await spinning.guest.runState() == .gone("signal 9"))
        }
    }

    @Test func sharedMemoryForbidsLiveOnly() async throws {
        let shared = ["-object", "memory-backend-memfd,id=ram0,size=64M", "-machine", "memory-backend=ram0"]
        try await SpinningGuest.run(SpinningGuest.command + shared, waits: false) { spinning in
            let blockers = try await spinning.guest.blockers(for: .live)
            #expect(blockers.contains { $0.contains("ram0") })
            #expect(try await !spinning.guest.blockers(for: .precopy).contains { $0.contains("ram0") })
        }
    }

    /// TCG tracks what it writes rightly only since 9.0.
    @Test func precopyIsRefusedWhereQEMULosesMemory() async throws {
        #expect(Preflight.precopyBlocker(major: 7, minor: 2, hasKVM: true) == nil)
        #expect(Preflight.precopyBlocker(major: 8, minor: 2, hasKVM: false)?.contains("QEMU 8.2 without KVM") == true)
        #expect(Preflight.precopyBlocker(major: 9, minor: 0, hasKVM: false) == nil)
        try await SpinningGuest.run { spinning in
            let version = try await spinning.guest.machineIdentity().vmmVersion
            let isOld = ["7.", "8."].contains { version.hasPrefix($0) }
            let blockers = try await spinning.guest.blockers(for: .precopy)
            #expect(blockers.contains { $0.contains("without KVM") } == isOld)
        }
    }

    @Test func aWritableDiskOfQEMUsOwnForbidsEveryWay() async throws {
        let folder = try Files.temporaryDirectory(prefix: "cf-own")
        defer { try? Files.removeTree(folder) }
        try Files.replaceAtomically(folder + "/own.raw", contents: [UInt8](repeating: 0, count: 65536))
        let own = [
            "-blockdev", "driver=file,node-name=own,filename=\(folder)/own.raw", "-device", "virtio-blk-pci,drive=own",
        ]
        try await SpinningGuest.run(SpinningGuest.command + own, waits: false) { spinning in
            for way in [CaptureWay.live, .precopy, .paused] {
                let blockers = try await spinning.guest.blockers(for: way)
                #expect(blockers.filter { $0.contains("own") }.count == 1)
            }
        }
    }

    @Test func aMonitorAtWhichNobodyListensIsNamed() async throws {
        let folder = try Files.temporaryDirectory(prefix: "cf-attach")
        defer { try? Files.removeTree(folder) }
        let host = GuestHost(folder: folder, nodes: [])
        let options = GuestOptions(driver: "qemu", branch: GuestOptionsQemu(attach: folder + "/other.qmp"))
        do {
            _ = try await QEMUGuestModule.module.guests[0].add(options, services: host)
            Issue.record("It was attached")
        } catch {
            #expect("\(error)".contains("Nobody listens at '\(folder)/other.qmp'"))
        }
        let both = GuestOptions(driver: "qemu", branch: GuestOptionsQemu(command: ["x"], attach: "/y"))
        await #expect(throws: ColdframeError.self) {
            try await QEMUGuestModule.module.guests[0].add(both, services: host)
        }
    }

    @Test func aFolderThatIsTooDeepForSocketsIsRefused() async throws {
        let host = GuestHost(folder: "/" + String(repeating: "x", count: 120), nodes: [])
        let options = GuestOptions(driver: "qemu", branch: GuestOptionsQemu(command: ["true"]))
        do {
            _ = try await QEMUGuestModule.module.guests[0].add(options, services: host)
            Issue.record("It was taken")
        } catch {
            #expect("\(error)".contains("too long"))
        }
    }

    @Test func aStateIsLoadedInPlace() async throws {
        try await SpinningGuest.run { spinning in
            let image = spinning.folder + "/state.qcow2"
            let pid = try ProcessControl.spawn(
                SpawnRequest(path: "qemu-img", arguments: ["create", "-q", "-f", "qcow2", image, "1M"]))
            #expect(try ProcessControl.wait(pid) == .exited(0))
            let guest = spinning.guest
            _ = try await guest.passThrough(
                "blockdev-add",
                arguments: [
                    "driver": "qcow2", "node-name": "state", "file": ["driver": "file", "filename": .string(image)],
                ])
            try await guest.stop()
            let saved = try await spinning.count()
            _ = try await guest.passThrough(
                "snapshot-save",
                arguments: ["job-id": "save", "tag": "t", "vmstate": "state", "devices": ["state"]])
            while try await guest.passThrough("query-jobs", arguments: nil).arrayValue?.first?["status"] != "concluded"
            {
                try await Task.sleep(nanoseconds: 10_000_000)
            }
            _ = try await guest.passThrough("blockdev-del", arguments: ["node-name": "state"])
            try await guest.cont()
            try await spinning.waitForProgress()
            try await guest.stop()
            await #expect(throws: ColdframeError.self) { try await guest.loadState(imagePath: image, tag: "other") }
            guard case .failed = try await guest.interruptedLoad() else {
                Issue.record("QEMU has forgotten that the load failed")
                return
            }
            await guest.concludeLoad()
            #expect(try await guest.interruptedLoad() == .notBegun)
            #expect(try await spinning.count() != saved)
            let jobEvents = spinning.host.events.filter { $0 == "JOB_STATUS_CHANGE" }.count
            try await guest.loadState(imagePath: image, tag: "t")
            #expect(try await guest.interruptedLoad() == .loaded)
            await guest.concludeLoad()
            #expect(try await spinning.count() == saved)
            #expect(spinning.host.events.filter { $0 == "JOB_STATUS_CHANGE" }.count == jobEvents)
            try await guest.cont()
            try await spinning.expectAliveAndWell()
        }
    }
}
