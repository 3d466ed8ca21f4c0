import KeeperWire
import LinuxSystem

/// The guest's process, of which a keeper has one at a time: a child, or a stranger that is watched by its pidfd.
struct GuestProcess {
    /// 0 before the first start.
    private(set) var processID: Int32 = 0
    private(set) var identity = ""
    private(set) var exit: GuestExit?
    private var logPath = ""
    /// Of a stranger: readable once it has ended.
    private(set) var stranger: Descriptor?

    private static let logTailByteCount: UInt64 = 4096

    var isAlive: Bool { processID != 0 && exit == nil }

    mutating func start(_ order: SpawnOrder) -> KeeperReply {
        guard !isAlive else { return .failed("the guest runs already, as process \(processID)") }
        guard let program = order.command.first else { return .failed("the command is empty") }
        do {
            let input = try Descriptor.open("/dev/null", .readOnly)
            let log = try Descriptor.open(order.logPath, [.writeOnly, .create, .append], mode: 0o600)
            processID = try ProcessControl.spawn(
                SpawnRequest(
                    path: program, arguments: Array(order.command.dropFirst()),
                    descriptors: [(input.raw, 0), (log.raw, 1), (log.raw, 2)],
                    workingDirectory: order.workingDirectory, newSession: true))
            exit = nil
            stranger = nil
            identity = order.identity
            logPath = order.logPath
            return .spawned(processID: processID)
        } catch {
            return .failed("\(error)")
        }
    }

    mutating func adopt(_ processID: Int32, identity: String, _ descriptor: Descriptor?) -> KeeperReply {
        guard !isAlive else { return .failed("the guest runs already, as process \(self.processID)") }
        guard let descriptor else { return .failed("no descriptor came with the process") }
        self.processID = processID
        self.identity = identity
        exit = nil
        logPath = ""
        stranger = descriptor
        return .done
    }

    mutating func disown() -> KeeperReply {
        processID = 0
        stranger = nil
        exit = nil
        return .done
    }

    func signal(_ signal: Int32) -> KeeperReply {
        guard isAlive else { return .failed("the guest has ended") }
        do {
            if let stranger {
                try ProcessControl.signal(pidfd: stranger, signal)
            } else {
                try ProcessControl.signal(processID, signal)
            }
            return .done
        } catch {
            return .failed("\(error)")
        }
    }

    /// The stranger's pidfd has become readable.
    mutating func strangerEnded() -> GuestExit {
        let ended = GuestExit(description: "it ended, how is known to its own parent", logTail: "")
        exit = ended
        stranger = nil
        return ended
    }

    /// Takes the child's exit status if it has ended just now.
    mutating func reap() -> GuestExit? {
        guard isAlive, stranger == nil, let status = try? ProcessControl.waitNonBlocking(processID) else { return nil }
        let ended = GuestExit(description: Self.words(status), logTail: logTail())
        exit = ended
        return ended
    }

    private static func words(_ status: ExitStatus) -> String {
        switch status {
        case .exited(let code): "exit status \(code)"
        case .signalled(let signal): "signal \(signal)"
        }
    }

    private func logTail() -> String {
        guard let log = try? Descriptor.open(logPath, .readOnly), let size = try? log.status().byteCount else {
            return ""
        }
        var bytes = [UInt8](repeating: 0, count: Int(min(size, Self.logTailByteCount)))
        let start = size - UInt64(bytes.count)
        let count = bytes.withUnsafeMutableBytes { (try? log.preadFull(into: $0, at: start)) ?? 0 }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
