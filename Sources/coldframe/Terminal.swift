import LinuxSystem
import QMPWire

/// What goes to the user's screen.
enum Terminal {
    /// Progress is drawn on the error stream, so that the output can go to a file.
    static let isErrorTerminal = StandardStreams.isTerminal(2)

    static func write(_ text: String) { StandardStreams.write(text, to: 1) }
    static func writeError(_ text: String) { StandardStreams.write(text, to: 2) }

    static func write(json value: JSONValue) {
        write(JSONWriter.string(value, pretty: true) + "\n")
    }
}
