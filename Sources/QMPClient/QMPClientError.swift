import LinuxSystem
import QMPWire

/// Why a command has no result.
public enum QMPClientError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The peer answered with an error.
    case refused(QMPError)
    /// No answer came in time. The command may still be carried out.
    case timedOut(command: String, milliseconds: Int)
    /// The connection ended, or had ended, before the answer.
    case closed(reason: String)
    /// The connection could not be made.
    case unreachable(SystemError)

    /// The peer's error, if it is one.
    public var qmpError: QMPError? {
        if case .refused(let error) = self { error } else { nil }
    }

    public var description: String {
        switch self {
        case .refused(let error): error.description
        case .timedOut(let command, let milliseconds): "No answer to '\(command)' within \(milliseconds) ms"
        case .closed(let reason): "The QMP connection is closed: \(reason)"
        case .unreachable(let error): error.description
        }
    }
}
