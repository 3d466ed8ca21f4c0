/// What an agent asks of its guest's keeper.
public enum KeeperRequest: Sendable, Equatable {
    /// Start the guest. Answered by `spawned` or `failed`.
    case spawn(SpawnOrder)
    /// Look after a guest that somebody else has started; a pidfd of its process comes with the message. Answered by
    /// `done` or `failed`.
    case adopt(processID: Int32, identity: String)
    /// Look no more after the guest, which goes on. Answered by `done`.
    case disown
    /// Hold the read end of a capture, which comes with the message. Answered by `done`; from then on the capture is
    /// ended in this way if this connection ends.
    case holdCapture(UInt64, CaptureEnding)
    /// The agent has read the capture to its end. Answered by `done`.
    case releaseCapture(UInt64)
    /// Answered by `status`.
    case status
    /// Send the guest a signal. Answered by `done` or `failed`.
    case signalGuest(Int32)
}

/// How a capture is ended that has lost its agent.
public enum CaptureEnding: UInt8, Sendable {
    /// Read and discarded to its end: a background snapshot that is broken off freezes the guest for good.
    case drain = 0
    /// Broken off: the guest goes on at once, as after a lost connection.
    case sever = 1
}

/// A guest to be started.
public struct SpawnOrder: Sendable, Equatable {
    /// The program and its arguments.
    public var command: [String]
    /// File that gets the guest's standard output and error; appended to.
    public var logPath: String
    public var workingDirectory: String
    /// What the agent calls this guest; told to the next agent, which knows its guest by it.
    public var identity: String

    public init(command: [String], logPath: String, workingDirectory: String, identity: String = "") {
        self.command = command
        self.logPath = logPath
        self.workingDirectory = workingDirectory
        self.identity = identity
    }
}

/// What a keeper says. `guestExited` comes by itself, the others answer requests in their order.
public enum KeeperReply: Sendable, Equatable {
    case done
    case failed(String)
    case spawned(processID: Int32)
    case status(KeeperStatus)
    case guestExited(GuestExit)
}

/// What a keeper has.
public struct KeeperStatus: Sendable, Equatable {
    /// 0: no guest.
    public var processID: Int32
    public var identity: String
    /// Set when the guest has ended.
    public var exit: GuestExit?
    /// Captures without an agent whose end has not come yet.
    public var drainingCount: UInt32

    public init(processID: Int32, identity: String, exit: GuestExit?, drainingCount: UInt32) {
        self.processID = processID
        self.identity = identity
        self.exit = exit
        self.drainingCount = drainingCount
    }

    public var isGuestAlive: Bool { processID != 0 && exit == nil }
}

/// How a guest's process ended.
public struct GuestExit: Sendable, Equatable {
    /// `exit status 1`, `signal 9`.
    public var description: String
    /// The last lines of its log.
    public var logTail: String

    public init(description: String, logTail: String) {
        self.description = description
        self.logTail = logTail
    }
}
