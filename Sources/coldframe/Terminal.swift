import LinuxSystem

/// What goes to the user's screen.
enum Terminal {
    static let isErrorTerminal = StandardStreams.isTerminal(2)

    static func write(_ text: String) { StandardStreams.write(text, to: 1) }
    static func writeError(_ text: String) { StandardStreams.write(text, to: 2) }
}
