import LinuxSystem
import QMPWire

/// The one error of the agent: a stable code, a text that says what failed, on what, why and what to do, and, where
/// an I/O request failed, the errno that an export passes on.
///
/// The QMP error class and text are derived from it in one place, `wireError`.
public struct ColdframeError: Error, Sendable, CustomStringConvertible {
    /// What went wrong, for callers that decide by it. The text may change, the code may not.
    public enum Code: Sendable {
        /// A named thing (node, job, export, snapshot, file) does not exist.
        case notFound
        /// QMP class DeviceNotFound: commands for which clients probe by that class.
        case deviceNotFound
        /// QMP class DeviceNotActive.
        case deviceNotActive
        /// The name is taken.
        case alreadyExists
        /// An argument or option is outside what is allowed.
        case invalidArgument
        /// Somebody holds it: a lock, a lease, a permission, a running job.
        case busy
        /// The node or module lacks the capability.
        case unsupported
        /// Not allowed: read-only, gate, credentials.
        case permission
        /// The image or stream breaks its format's rules.
        case corrupt
        /// A system call failed; `errno` says how.
        case io
        /// The work was cancelled by its user.
        case cancelled
        /// A deadline passed.
        case timedOut
        /// A peer (guest, keeper, client) broke its protocol or went away.
        case peer
    }

    public let code: Code
    /// What failed, on what, why, and what to do. On the wire this is `desc`.
    public let message: String
    /// The errno that an export replies with; EIO where nothing else is known.
    public let errno: Int32

    public init(_ code: Code, _ message: String, errno: Int32? = nil) {
        self.code = code
        self.message = message
        self.errno = errno ?? code.defaultErrno
    }

    /// A failed system call, with what it was done to.
    public init(_ error: SystemError, _ context: String) {
        self.init(.io, "\(context): \(error.reason)", errno: error.errno)
    }

    /// Any error as one of ours; foreign ones become `.io` with their description.
    public init(wrapping error: any Error) {
        switch error {
        case let error as ColdframeError: self = error
        case let error as SystemError: self.init(.io, error.description, errno: error.errno)
        case let error as QMPError: self.init(.invalidArgument, error.description)
        case is CancellationError: self.init(.cancelled, "Operation canceled")
        default: self.init(.io, "\(error)")
        }
    }

    /// The same error with the given words before its text.
    public func prefixed(_ context: String) -> ColdframeError {
        ColdframeError(code, "\(context): \(message)", errno: errno)
    }

    public var description: String { message }

    /// Class and text as QEMU sends them.
    public var wireError: QMPError {
        switch code {
        case .deviceNotFound: QMPError(.deviceNotFound, message)
        case .deviceNotActive: QMPError(.deviceNotActive, message)
        default: QMPError(.genericError, message)
        }
    }
}

extension ColdframeError.Code {
    fileprivate var defaultErrno: Int32 {
        switch self {
        case .notFound, .deviceNotFound, .deviceNotActive: 2  // ENOENT
        case .alreadyExists: 17  // EEXIST
        case .invalidArgument: 22  // EINVAL
        case .busy: 16  // EBUSY
        case .unsupported: 95  // EOPNOTSUPP
        case .permission: 1  // EPERM
        case .cancelled: 125  // ECANCELED
        case .timedOut: 110  // ETIMEDOUT
        case .corrupt, .io, .peer: 5  // EIO
        }
    }
}
