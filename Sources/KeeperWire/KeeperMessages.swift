/// What an agent asks of its guest's keeper.
public enum KeeperRequest: Sendable, Equatable {
    /// Start the guest. Answered by `spawned` or `failed`.
    case spawn(SpawnOrder)
    /// Hold the read end of a capture, which comes with the message. Answered by `done`; from then on the capture is
    /// drained to its end if this connection ends.
    case holdCapture(UInt64)
    /// The agent has read the capture to its end. Answered by `done`.
    case releaseCapture(UInt64)
    /// Answered by `status`.
    case status
    /// Send the guest a signal. Answered by `done` or `failed`.
    case signalGuest(Int32)
}

/// A guest to be started.
public struct SpawnOrder: Sendable, Equatable {
    /// The program and its arguments.
    public var command: [String]
    /// File that gets the guest's standard output and error; appended to.
    public var logPath: String
    public var workingDirectory: String

    public init(command: [String], logPath: String, workingDirectory: String) {
        self.command = command
        self.logPath = logPath
        self.workingDirectory = workingDirectory
    }
}

/// What a keeper says. `guestExited` comes by itself, the others answer requests in their order.
public enum KeeperReply: Sendable, Equatable {
    case done
    case failed(String)
    case spawned(processID: Int32)
    /// `processID` 0: no guest was started. `exit` is set when it has ended.
    case status(processID: Int32, exit: GuestExit?)
    case guestExited(GuestExit)
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
