import QAPI
import QMPWire

/// `qmp_capabilities`: the one command of a connection that has just been made.
enum Negotiation {
    static let command = QmpCapabilitiesCommand.name
    /// What the greeting offers.
    static let capabilities = ["oob"]

    /// The answer to everything else.
    static let expected = QMPError(
        .commandNotFound, "Expecting capabilities negotiation with '\(command)'")

    /// Arguments are checked before the state, as by QEMU's dispatcher. A refusal leaves the connection as it was.
    static func prepare(
        _ arguments: JSONObject, _ connection: MonitorConnection
    ) throws(QMPError) -> CommandTable.Prepared {
        let arguments = try QmpCapabilitiesCommand.Arguments(QAPIInput(.object(arguments)))
        if connection.isNegotiated {
            throw QMPError(.commandNotFound, "Capabilities negotiation is already complete, command ignored")
        }
        let isOutOfBand = arguments.enable?.contains(.oob) ?? false
        return CommandTable.Prepared(touches: []) {
            connection.negotiated(outOfBand: isOutOfBand)
            return [:]
        }
    }
}
