import Glibc

/// The standard streams, for programs that speak with people.
public enum StandardStreams {
    /// `isatty(3)` of stream 0, 1 or 2.
    public static func isTerminal(_ number: Int32) -> Bool { isatty(number) == 1 }

    /// Writes a text as it is. A reader that has gone away is no error: nobody is left to hear of it.
    public static func write(_ text: String, to number: Int32) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(number, $0.baseAddress, $0.count) }
            if count > 0 {
                bytes = bytes.dropFirst(count)
            } else if count == 0 || errno != EINTR {
                return
            }
        }
    }
}
