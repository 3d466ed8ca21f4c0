extension KeeperRequest {
    /// The message as it travels.
    public var frame: [UInt8] {
        var body = BodyWriter()
        switch self {
        case .spawn(let order):
            body.text(order.logPath)
            body.text(order.workingDirectory)
            body.text(order.identity)
            body.texts(order.command)
            return body.frame(kind: 1)
        case .holdCapture(let id, let ending):
            body.number(id)
            body.number(ending.rawValue)
            return body.frame(kind: 2)
        case .releaseCapture(let id):
            body.number(id)
            return body.frame(kind: 3)
        case .status:
            return body.frame(kind: 4)
        case .signalGuest(let signal):
            body.number(signal)
            return body.frame(kind: 5)
        case .adopt(let processID, let identity):
            body.number(processID)
            body.text(identity)
            return body.frame(kind: 6)
        case .disown:
            return body.frame(kind: 7)
        }
    }

    public init(kind: UInt8, body: [UInt8]) throws(KeeperFrameError) {
        var reader = BodyReader(body)
        switch kind {
        case 1:
            let logPath = try reader.text()
            let workingDirectory = try reader.text()
            let identity = try reader.text()
            self = .spawn(
                SpawnOrder(
                    command: try reader.texts(), logPath: logPath, workingDirectory: workingDirectory,
                    identity: identity))
        case 2:
            let id = try reader.number(UInt64.self)
            guard let ending = CaptureEnding(rawValue: try reader.number(UInt8.self)) else {
                throw KeeperFrameError(description: "unknown way to end a capture")
            }
            self = .holdCapture(id, ending)
        case 3: self = .releaseCapture(try reader.number(UInt64.self))
        case 4: self = .status
        case 5: self = .signalGuest(try reader.number(Int32.self))
        case 6:
            let processID = try reader.number(Int32.self)
            self = .adopt(processID: processID, identity: try reader.text())
        case 7: self = .disown
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
        case .status(let status):
            body.number(status.processID)
            body.number(status.drainingCount)
            body.text(status.identity)
            body.texts(status.exit.map { [$0.description, $0.logTail] } ?? [])
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
            let drainingCount = try reader.number(UInt32.self)
            let identity = try reader.text()
            let texts = try reader.texts()
            self = .status(
                KeeperStatus(
                    processID: processID, identity: identity,
                    exit: texts.count == 2 ? GuestExit(description: texts[0], logTail: texts[1]) : nil,
                    drainingCount: drainingCount))
        case 68:
            let texts = try reader.texts()
            guard texts.count == 2 else { throw KeeperFrameError(description: "message is cut short") }
            self = .guestExited(GuestExit(description: texts[0], logTail: texts[1]))
        default: throw KeeperFrameError(description: "unknown message \(kind)")
        }
        try reader.finish()
    }
}
