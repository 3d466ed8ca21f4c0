import ColdframeKit
import LinuxSystem
import QMPWire
import Testing

@testable import QEMUGuest

/// Captures of a real QEMU.
@Suite(.serialized) @AgentActor struct CaptureTests {
    @Test(arguments: [CaptureWay.live, .precopy, .paused])
    func aCaptureGivesAStreamAndTheGuestGoesOn(_ way: CaptureWay) async throws {
        try await SpinningGuest.run { spinning in
            for round in 1...2 {
                // An old QEMU under TCG loses memory in a precopy; how a capture goes is the same.
                #expect(try await spinning.guest.blockers(for: way).allSatisfy { $0.contains("without KVM") })
                let capture = try await spinning.guest.beginCapture(way: way)
                let reader = SpinningGuest.read(capture.stream)
                try await capture.stopped()
                capture.release()
                let byteCount = try await reader.value
                let pause = try #require(try await capture.finish().pauseNanoseconds)
                print("\(way.rawValue), round \(round): \(byteCount) bytes, pause \(Double(pause) / 1e6) ms")
                #expect(byteCount > 32 << 20)
                #expect(pause > 0 && pause < 5_000_000_000)
                try await spinning.expectAliveAndWell()
            }
            #expect(spinning.host.events.filter { $0 == "STOP" }.count == 2)
            #expect(spinning.host.events.filter { $0 == "RESUME" }.count == 2)
            #expect(!spinning.host.events.contains { $0.hasPrefix("MIGRATION") })
        }
    }

    @Test func whileTheBarrierHoldsTheGuestStandsStill() async throws {
        try await SpinningGuest.run { spinning in
            let capture = try await spinning.guest.beginCapture(way: .live)
            let reader = SpinningGuest.read(capture.stream)
            try await capture.stopped()
            try await Task.sleep(nanoseconds: 300_000_000)
            #expect(await capture.progress() == nil)
            capture.release()
            _ = try await reader.value
            let pause = try #require(try await capture.finish().pauseNanoseconds)
            #expect(pause >= 300_000_000)
        }
    }

    @Test func aHoldThatPassedItsLimitFailsTheCaptureAndNotTheGuest() async throws {
        try await SpinningGuest.run { spinning in
            let capture = try await spinning.guest.beginCapture(way: .live)
            let reader = SpinningGuest.read(capture.stream)
            try await capture.stopped()
            try await Task.sleep(nanoseconds: 1_300_000_000)
            capture.release()
            _ = try await reader.value
            await #expect(throws: ColdframeError.self) { try await capture.finish() }
            try await spinning.expectAliveAndWell()
        }
    }

    @Test func aPausedGuestStaysPaused() async throws {
        try await SpinningGuest.run { spinning in
            try await spinning.guest.stop()
            #expect(try await !spinning.guest.blockers(for: .live).isEmpty)
            #expect(try await !spinning.guest.blockers(for: .precopy).isEmpty)
            #expect(try await spinning.guest.blockers(for: .paused) == [])
            await #expect(throws: ColdframeError.self) { try await spinning.guest.beginCapture(way: .paused) }
            let saver = try #require(spinning.guest as? any StoppedStateSaving)
            for round in 1...2 {
                let path = "\(spinning.folder)/state\(round).qcow2"
                let pid = try ProcessControl.spawn(
                    SpawnRequest(path: "qemu-img", arguments: ["create", "-q", "-f", "qcow2", path, "1M"]))
                #expect(try ProcessControl.wait(pid) == .exited(0))
                try await saver.saveState(imagePath: path, tag: "state")
                #expect(try Files.status(path).byteCount > 1 << 20)
                #expect(try await saver.runState() == .stopped("paused"))
            }
            try await spinning.guest.cont()
            try await spinning.expectAliveAndWell()
        }
    }

    @Test(arguments: [CaptureWay.live, .precopy, .paused])
    func anAbandonedCaptureLeavesTheGuestRunning(_ way: CaptureWay) async throws {
        try await SpinningGuest.run { spinning in
            for delayMilliseconds in [0, 1, 3, 5, 10, 20, 40, 60] {
                let capture = try await spinning.guest.beginCapture(way: way)
                try await Task.sleep(nanoseconds: UInt64(delayMilliseconds) * 1_000_000)
                // Twice at once, as a cancel and a failure do.
                async let first: Void = capture.abandon()
                async let second: Void = capture.abandon()
                _ = await (first, second)
                await capture.abandon()
                try await spinning.expectAliveAndWell()
            }
        }
    }

    @Test(arguments: [CaptureWay.live, .precopy, .paused])
    func abandonAfterTheCutLeavesTheGuestRunning(_ way: CaptureWay) async throws {
        try await SpinningGuest.run { spinning in
            for releases in [false, true] {
                let capture = try await spinning.guest.beginCapture(way: way)
                // Precopy comes to its stop only when its RAM is read.
                let copy = try capture.stream.duplicate()
                let reader = way == .precopy ? SpinningGuest.read(copy) : nil
                try await capture.stopped()
                if releases { capture.release() }
                await capture.abandon()
                _ = try await reader?.value
                try await spinning.expectAliveAndWell()
            }
        }
    }

    @Test func aCaptureThatNobodyReadsFreezesTheGuestUntilItIsThawed() async throws {
        try await SpinningGuest.run { spinning in
            let guest = try #require(spinning.guest as? QEMUGuest)
            let pid = Int32(try #require(await guest.information().pid))
            let capture = try await guest.beginCapture(way: .live)
            try await capture.stopped()
            capture.release()
            try await Task.sleep(nanoseconds: 50_000_000)
            // Both copies of the read end go, as if agent and keeper were killed.
            await guest.keeper.release(1)
            capture.stream.close()
            var ranges = try UserFaults.protectedRanges(of: pid)
            for _ in 0..<500 where ranges.isEmpty {
                try await Task.sleep(nanoseconds: 10_000_000)
                ranges = try UserFaults.protectedRanges(of: pid)
            }
            #expect(!ranges.isEmpty)
            try UserFaults.lift(ranges, of: pid)
            #expect(try UserFaults.protectedRanges(of: pid).isEmpty)
            await capture.abandon()
            try await spinning.waitForProgress()
            let second = try await guest.beginCapture(way: .live)
            try await second.stopped()
            await second.abandon()
            try await spinning.expectAliveAndWell()
        }
    }

    @Test func aLiveCaptureThatLosesItsAgentIsReadByTheKeeper() async throws {
        try await SpinningGuest.run { spinning in
            let guest = try #require(spinning.guest as? QEMUGuest)
            let capture = try await guest.beginCapture(way: .live)
            try await capture.stopped()
            capture.release()
            // As the keeper sees it the agent is dead; nobody else reads.
            guest.keeper.close()
            var status = ""
            for _ in 0..<1000 where status != "completed" {
                try await Task.sleep(nanoseconds: 10_000_000)
                status = try await guest.monitor.execute("query-migrate")["status"]?.stringValue ?? ""
            }
            #expect(status == "completed")
            await capture.abandon()
            try await spinning.expectAliveAndWell()
        }
    }

    @Test func oneCaptureAtATime() async throws {
        try await SpinningGuest.run { spinning in
            let capture = try await spinning.guest.beginCapture(way: .live)
            await #expect(throws: ColdframeError.self) { try await spinning.guest.beginCapture(way: .live) }
            await #expect(throws: QMPError.self) {
                try await spinning.guest.passThrough("migrate_cancel", arguments: nil)
            }
            await capture.abandon()
            try await spinning.expectAliveAndWell()
        }
    }

    @Test func aGuestThatIsKilledEndsItsCapture() async throws {
        try await SpinningGuest.run { spinning in
            let pid = try #require(await spinning.guest.information().pid)
            let capture = try await spinning.guest.beginCapture(way: .live)
            try await capture.stopped()
            try ProcessControl.signal(Int32(pid), Signals.kill)
            capture.release()
            await capture.abandon()
            for _ in 0..<500 where spinning.host.deathReason == nil { try await Task.sleep(nanoseconds: 10_000_000) }
            #expect(spinning.host.deathReason?.contains("signal 9") == true)
        }
    }
}
