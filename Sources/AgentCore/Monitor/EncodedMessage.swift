import ColdframeKit
import QMPWire

/// A message for many clients, written once for all that want it in the same form.
@AgentActor
final class EncodedMessage {
    private let value: JSONValue
    private var compact: [UInt8]?
    private var pretty: [UInt8]?

    init(_ value: JSONValue) { self.value = value }

    func bytes(pretty isPretty: Bool) -> [UInt8] {
        if let bytes = isPretty ? pretty : compact { return bytes }
        let bytes = JSONWriter.message(value, pretty: isPretty)
        if isPretty { pretty = bytes } else { compact = bytes }
        return bytes
    }
}
