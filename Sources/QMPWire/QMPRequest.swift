/// A refused envelope, with the id to echo.
public struct QMPEnvelopeError: Error, Sendable, Equatable {
    public let error: QMPError
    public let id: JSONValue?

    public init(error: QMPError, id: JSONValue?) {
        self.error = error
        self.id = id
    }
}

/// A command as a client sends it.
public struct QMPRequest: Sendable, Equatable {
    public enum Kind: Sendable {
        case execute
        /// `exec-oob`: to be run at once, before what is queued.
        case executeOutOfBand
    }

    public let kind: Kind
    public let command: String
    /// Empty if the envelope has none.
    public let arguments: JSONObject
    /// Any value, also null; nil if the envelope has none.
    public let id: JSONValue?

    public init(kind: Kind = .execute, command: String, arguments: JSONObject = [:], id: JSONValue? = nil) {
        self.kind = kind
        self.command = command
        self.arguments = arguments
        self.id = id
    }

    /// Checks an envelope; the first bad member in the order of the text decides the error.
    public init(envelope: JSONValue, outOfBandEnabled: Bool) throws(QMPEnvelopeError) {
        guard let envelope = envelope.objectValue else {
            throw QMPEnvelopeError(error: QMPError(.genericError, "QMP input must be a JSON object"), id: nil)
        }
        let id = envelope["id"]
        func refused(_ text: String) -> QMPEnvelopeError {
            QMPEnvelopeError(error: QMPError(.genericError, "QMP input \(text)"), id: id)
        }
        var kind: Kind?
        var command = ""
        var arguments = JSONObject()
        for (key, value) in envelope {
            switch key {
            case "execute", "exec-oob":
                guard key == "execute" || outOfBandEnabled else { throw refused("member '\(key)' is unexpected") }
                guard let name = value.stringValue else { throw refused("member '\(key)' must be a string") }
                if kind != nil { throw refused("member 'execute' clashes with 'exec-oob'") }
                kind = key == "execute" ? .execute : .executeOutOfBand
                command = name
            case "arguments":
                guard let object = value.objectValue else { throw refused("member 'arguments' must be an object") }
                arguments = object
            case "id": continue
            default: throw refused("member '\(key)' is unexpected")
            }
        }
        guard let kind else { throw refused("lacks member 'execute'") }
        self.init(kind: kind, command: command, arguments: arguments, id: id)
    }

    /// The envelope as a client sends it.
    public var json: JSONValue {
        var envelope: JSONObject = [kind == .execute ? "execute" : "exec-oob": .string(command)]
        if !arguments.isEmpty { envelope["arguments"] = .object(arguments) }
        envelope["id"] = id
        return .object(envelope)
    }
}
