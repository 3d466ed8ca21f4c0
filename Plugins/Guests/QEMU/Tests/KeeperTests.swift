import ColdframeKit
import KeeperWire
import LinuxSystem
import Testing

@testable import QEMUGuest

/// The keeper as a process, with processes below it.
@Suite struct KeeperTests {
    /// A keeper with a folder; both are gone afterwards.
    private func withKeeper(
        _ body: (KeeperLink, _ folder: String, _ exits: Exits) async throws -> Void
    ) async throws {
        let folder = try Files.temporaryDirectory(prefix: "cf-keeper")
        defer { try? Files.removeTree(folder) }
        let exits = Exits()
        let link = try await KeeperLink.start(socketPath: folder + "/k.sock", errorLogPath: folder + "/k.log") {
            exits.add($0)
        }
        defer { link.close() }
        try await body(link, folder, exits)
    }

    private final class Exits: Sendable {
        private let list = Locked<[GuestExit]>([])
        func add(_ exit: GuestExit) { list.withLock { $0.append(exit) } }

        func first() async throws -> GuestExit? {
            for _ in 0..<500 {
                if let exit = list.withLock({ $0.first }) { return exit }
                try await Task.sleep(nanoseconds: 10_000_000)
            }
            return nil
        }
    }

    private func order(_ script: String, _ folder: String) -> SpawnOrder {
        SpawnOrder(command: ["/bin/sh", "-c", script], logPath: folder + "/guest.log", workingDirectory: "/")
    }

    @Test func itTellsHowItsGuestEndedAndWhatItSaid() async throws {
        try await withKeeper { link, folder, exits in
            #expect(try await link.spawn(order("echo out; echo err >&2; exit 3", folder)) > 0)
            let exit = try await exits.first()
            #expect(exit?.description == "exit status 3")
            #expect(exit?.logTail == "out\nerr\n")
        }
    }

    @Test func aGuestHasNoDescriptorsButThreeAndASessionOfItsOwn() async throws {
        try await withKeeper { link, folder, exits in
            let script = "for n in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$n; done; ps -o sid= -p $$; echo $$"
            _ = try await link.spawn(order(script, folder))
            let words = try await exits.first()?.logTail.split(whereSeparator: \.isWhitespace).map(String.init) ?? []
            #expect(words.prefix(3) == ["/dev/null", folder + "/guest.log", folder + "/guest.log"])
            #expect(words.count == 5 && words[3] == words[4])
        }
    }

    @Test func itSignalsItsGuest() async throws {
        try await withKeeper { link, folder, exits in
            _ = try await link.spawn(order("exec sleep 100", folder))
            try await link.signal(Signals.terminate)
            #expect(try await exits.first()?.description == "signal 15")
            await #expect(throws: ColdframeError.self) { try await link.signal(Signals.terminate) }
        }
    }

    @Test func aProgramThatDoesNotExistIsAnError() async throws {
        try await withKeeper { link, folder, _ in
            await #expect(throws: ColdframeError.self) {
                try await link.spawn(
                    SpawnOrder(command: ["/no/such/program"], logPath: folder + "/log", workingDirectory: "/"))
            }
        }
    }

    @Test func itHasOneGuestAtATime() async throws {
        try await withKeeper { link, folder, exits in
            _ = try await link.spawn(order("exec sleep 100", folder))
            await #expect(throws: ColdframeError.self) { try await link.spawn(order("true", folder)) }
            try await link.signal(Signals.kill)
            _ = try await exits.first()
        }
    }

    @Test func aCaptureThatLosesItsAgentIsDrainedToItsEnd() async throws {
        try await withKeeper { link, folder, _ in
            let pid = try await link.spawn(order("exec sleep 100", folder))
            let (readEnd, writeEnd) = try UnixSocket.pair()
            _ = try await link.hold(readEnd, ending: .drain)
            let chunk = [UInt8](repeating: 7, count: 1 << 20)
            try writeEnd.writeAll(Array(chunk.prefix(4096)))
            // While the agent lives the stream is the agent's alone.
            try await Task.sleep(nanoseconds: 100_000_000)
            #expect(try readEnd.poll(for: .readable, timeoutMilliseconds: 0).contains(.readable))
            readEnd.close()
            link.close()
            // 64 MiB, which end only if somebody reads them.
            try await BlockingPool.shared.run { () throws(SystemError) in
                try writeEnd.setSendTimeout(milliseconds: 20_000)
                for _ in 0..<64 { try writeEnd.writeAll(chunk) }
            }
            #expect(throws: Never.self) { try ProcessControl.signal(pid, 0) }
            try ProcessControl.signal(pid, Signals.kill)
        }
    }

    @Test func aReleasedCaptureIsNotDrained() async throws {
        try await withKeeper { link, _, _ in
            let (readEnd, writeEnd) = try UnixSocket.pair()
            let capture = try await link.hold(readEnd, ending: .drain)
            await link.release(capture)
            readEnd.close()
            #expect(throws: SystemError.self) { try writeEnd.writeAll([1, 2, 3]) }
        }
    }

    @Test func aGuestOutlivesTheAgentsConnectionAndIsFoundAgain() async throws {
        try await withKeeper { link, folder, _ in
            let pid = try await link.spawn(order("exec sleep 100", folder))
            link.close()
            let socket = try UnixSocket.connect(path: folder + "/k.sock")
            try socket.setReceiveTimeout(milliseconds: 5_000)
            try socket.writeAll(KeeperRequest.status.frame)
            #expect(try Self.reply(socket) == .status(status(pid)))
            try ProcessControl.signal(pid, Signals.kill)
        }
    }

    @Test func garbageEndsTheConnectionOnly() async throws {
        try await withKeeper { link, folder, _ in
            let pid = try await link.spawn(order("exec sleep 100", folder))
            link.close()
            for garbage in [[UInt8](repeating: 0xFF, count: 64), [1, 3, 0, 0, 0, 9, 9, 9], [99, 0, 0, 0, 0], [1]] {
                let socket = try UnixSocket.connect(path: folder + "/k.sock")
                try? socket.writeAll(garbage)
                socket.close()
            }
            let socket = try UnixSocket.connect(path: folder + "/k.sock")
            try socket.setReceiveTimeout(milliseconds: 5_000)
            try socket.writeAll(KeeperRequest.status.frame)
            #expect(try Self.reply(socket) == .status(status(pid)))
            try ProcessControl.signal(pid, Signals.kill)
        }
    }

    private func status(_ processID: Int32, draining: UInt32 = 0) -> KeeperStatus {
        KeeperStatus(processID: processID, identity: "", exit: nil, drainingCount: draining)
    }

    @Test func aCaptureThatMayBeBrokenOffIs() async throws {
        try await withKeeper { link, folder, _ in
            let pid = try await link.spawn(order("exec sleep 100", folder))
            let (readEnd, writeEnd) = try UnixSocket.pair()
            _ = try await link.hold(readEnd, ending: .sever)
            readEnd.close()
            link.close()
            try await BlockingPool.shared.run { () throws(SystemError) in
                try writeEnd.setSendTimeout(milliseconds: 20_000)
                #expect(throws: SystemError.self) {
                    for _ in 0..<64 { try writeEnd.writeAll([UInt8](repeating: 1, count: 1 << 20)) }
                }
            }
            try ProcessControl.signal(pid, Signals.kill)
        }
    }

    @Test func theNextAgentIsToldWhatIsStillDrained() async throws {
        try await withKeeper { link, folder, _ in
            var order = order("exec sleep 100", folder)
            order.identity = "me"
            let pid = try await link.spawn(order)
            let (readEnd, writeEnd) = try UnixSocket.pair()
            _ = try await link.hold(readEnd, ending: .drain)
            readEnd.close()
            link.close()
            let (next, status) = try #require(
                try await KeeperLink.survivor(socketPath: folder + "/k.sock", onExit: { _ in }))
            defer { next.close() }
            #expect(status == KeeperStatus(processID: pid, identity: "me", exit: nil, drainingCount: 1))
            writeEnd.close()
            for _ in 0..<500 where try await next.status().drainingCount > 0 {
                try await Task.sleep(nanoseconds: 10_000_000)
            }
            #expect(try await next.status().drainingCount == 0)
            try ProcessControl.signal(pid, Signals.kill)
        }
    }

    @Test func aStrangerIsWatchedAndLeftAlone() async throws {
        let stranger = try ProcessControl.spawn(SpawnRequest(path: "sleep", arguments: ["100"]))
        try await withKeeper { link, _, exits in
            try await link.adopt(processID: stranger, identity: "other")
            #expect(try await link.status().processID == stranger)
            await link.disown()
            #expect(try await link.status().processID == 0)
            #expect(throws: Never.self) { try ProcessControl.signal(stranger, 0) }
            try await link.adopt(processID: stranger, identity: "other")
            try await link.signal(Signals.kill)
            #expect(try await exits.first() != nil)
        }
        _ = try ProcessControl.wait(stranger)
    }

    private static func reply(_ socket: Descriptor) throws -> KeeperReply? {
        var buffer = KeeperFrameBuffer()
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer { scratch.deallocate() }
        while true {
            if let (kind, body) = try buffer.next() { return try KeeperReply(kind: kind, body: body) }
            let count = try socket.read(into: scratch)
            if count == 0 { return nil }
            buffer.append(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
        }
    }
}
