extension KeeperRequest {
    /// The message as it travels.
    public var frame: [UInt8] {
        var body = BodyWriter()
        switch self {
        case .spawn(let order):
            body.text(order.logPath)
            body.text(order.workingDirectory)
            body.texts(order.command)
            return body.frame(kind: 1)
        case .holdCapture(let id):
            body.number(id)
            return body.frame(kind: 2)
        case .releaseCapture(let id):
            body.number(id)
            return body.frame(kind: 3)
        case .status:
            return body.frame(kind: 4)
        case .signalGuest(let signal):
            body.number(signal)
            return body.frame(kind: 5)
        }
    }

    public init(kind: UInt8, body: [UInt8]) throws(KeeperFrameError) {
        var reader = BodyReader(body)
        switch kind {
        case 1:
            let logPath = try reader.text()
            let workingDirectory = try reader.text()
            self = .spawn(
                SpawnOrder(command: try reader.texts(), logPath: logPath, workingDirectory: workingDirectory))
        case 2: self = .holdCapture(try reader.number(UInt64.self))
        case 3: self = .releaseCapture(try reader.number(UInt64.self))
        case 4: self = .status
        case 5: self = .signalGuest(try reader.number(Int32.self))
        default: throw KeeperFrameError(description: "unknown message \(kind)")
        }
        try reader.finish()
    }
}

extension KeeperReply {
    /// The message as it travels.
    public var frame: [UInt8] {
        var body = BodyWriter()
        switch self {
        case .done: return body.frame(kind: 64)
        case .failed(let text):
            body.text(text)
            return body.frame(kind: 65)
        case .spawned(let processID):
            body.number(processID)
            return body.frame(kind: 66)
        case .status(let processID, let exit):
            body.number(processID)
            body.texts(exit.map { [$0.description, $0.logTail] } ?? [])
            return body.frame(kind: 67)
        case .guestExited(let exit):
            body.texts([exit.description, exit.logTail])
            return body.frame(kind: 68)
        }
    }

    public init(kind: UInt8, body: [UInt8]) throws(KeeperFrameError) {
        var reader = BodyReader(body)
        switch kind {
        case 64: self = .done
        case 65: self = .failed(try reader.text())
        case 66: self = .spawned(processID: try reader.number(Int32.self))
        case 67:
            let processID = try reader.number(Int32.self)
            let texts = try reader.texts()
            self = .status(
                processID: processID,
                exit: texts.count == 2 ? GuestExit(description: texts[0], logTail: texts[1]) : nil)
        case 68:
            let texts = try reader.texts()
            guard texts.count == 2 else { throw KeeperFrameError(description: "message is cut short") }
            self = .guestExited(GuestExit(description: texts[0], logTail: texts[1]))
        default: throw KeeperFrameError(description: "unknown message \(kind)")
        }
        try reader.finish()
    }
}
