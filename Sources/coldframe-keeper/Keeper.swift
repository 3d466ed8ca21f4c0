import KeeperWire
import LinuxSystem

/// One loop over everything that can happen: an agent connects, asks or goes away; the guest ends; a capture that lost its
/// agent has more to drain.
struct Keeper {
    private let listener: Descriptor
    private let socketPath: String
    private let signals: SignalWaiter
    private var agent: AgentConnection?
    private var hadAgent = false
    private var guest = GuestProcess()
    /// Captures that the agent reads, held in case that it dies.
    private var held: [UInt64: (stream: Descriptor, ending: CaptureEnding)] = [:]
    /// Captures that lost their agent.
    private var draining: [Descriptor] = []
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)

    /// How long a keeper waits for its first agent.
    private static let graceMilliseconds = 5_000

    init(listener: Descriptor, socketPath: String) throws {
        self.listener = listener
        self.socketPath = socketPath
        signals = try SignalWaiter(signals: [Signals.child])
    }

    mutating func run() throws {
        while true {
            let isIdle = !guest.isAlive && agent == nil && draining.isEmpty
            // Whoever started it has come and gone, and so has the guest.
            if isIdle, hadAgent { return end() }
            var watched: [(Int32, PollEvents)] = [(signals.raw, .readable)]
            watched.append((agent?.socket.raw ?? listener.raw, .readable))
            watched += draining.map { ($0.raw, .readable) }
            let stranger = guest.stranger
            if let stranger { watched.append((stranger.raw, .readable)) }
            let ready = try pollDescriptors(watched, timeoutMilliseconds: isIdle ? Self.graceMilliseconds : nil)
            if ready.allSatisfy(\.isEmpty), isIdle { return end() }
            if !ready[0].isEmpty {
                _ = try signals.wait()
                reap()
            }
            if !ready[1].isEmpty { agent == nil ? accept() : serve() }
            // Both look at what was watched, whatever the agent has just asked for.
            if let stranger, ready.last?.isEmpty == false, guest.stranger === stranger {
                report(guest.strangerEnded())
            }
            drain(readable(among: watched, ready))
        }
    }

    /// The name goes before the listening socket does: the next keeper takes the name as soon as it is free.
    private func end() {
        try? Files.unlink(socketPath)
    }

    // MARK: The agent

    private mutating func accept() {
        // An agent that is gone again, or somebody else's: the next one is waited for.
        guard let socket = try? listener.accept(), let peer = try? socket.peerCredentials(),
            peer.userID == ProcessControl.effectiveUserID
        else { return }
        // An agent that does not read must not stop the drain of a capture.
        try? socket.setSendTimeout(milliseconds: 2_000)
        agent = AgentConnection(socket: socket)
        hadAgent = true
    }

    private mutating func serve() {
        do {
            guard let messages = try agent?.receive(into: scratch) else { return loseAgent() }
            for (request, descriptor) in messages {
                try agent?.send(answer(request, descriptor))
            }
        } catch {
            loseAgent()
        }
    }

    private mutating func answer(_ request: KeeperRequest, _ descriptor: Descriptor?) -> KeeperReply {
        switch request {
        case .spawn(let order):
            return guest.start(order)
        case .adopt(let processID, let identity):
            return guest.adopt(processID, identity: identity, descriptor)
        case .disown:
            return guest.disown()
        case .holdCapture(let id, let ending):
            guard let descriptor else { return .failed("no descriptor came with the capture") }
            held[id] = (descriptor, ending)
            return .done
        case .releaseCapture(let id):
            held[id] = nil
            return .done
        case .status:
            return .status(
                KeeperStatus(
                    processID: guest.processID, identity: guest.identity, exit: guest.exit,
                    drainingCount: UInt32(draining.count)))
        case .signalGuest(let signal):
            return guest.signal(signal)
        }
    }

    /// The agent is gone. A background capture that nobody reads would freeze the guest for good, so it is drained from
    /// here on; the others are broken off, so that the guest need not wait for the next agent.
    private mutating func loseAgent() {
        agent = nil
        for (stream, ending) in held.values {
            switch ending {
            case .drain:
                try? stream.setNonBlocking(true)
                draining.append(stream)
            case .sever: try? stream.shutdown(.both)
            }
        }
        held = [:]
    }

    // MARK: The guest

    private mutating func reap() {
        if let exit = guest.reap() { report(exit) }
    }

    private func report(_ exit: GuestExit) {
        // A lost agent is noticed by the next poll; it asks for the status when it is back.
        try? agent?.send(.guestExited(exit))
    }

    // MARK: Captures

    private func readable(among watched: [(Int32, PollEvents)], _ ready: [PollEvents]) -> [Descriptor] {
        let numbers = Set(zip(watched, ready).filter { !$0.1.isEmpty }.map(\.0.0))
        return draining.filter { numbers.contains($0.raw) }
    }

    private mutating func drain(_ ready: [Descriptor]) {
        for capture in ready {
            do {
                if try capture.read(into: scratch) == 0 { draining.removeAll { $0 === capture } }
            } catch {
                if error.errno != Errno.tryAgain { draining.removeAll { $0 === capture } }
            }
        }
    }
}
