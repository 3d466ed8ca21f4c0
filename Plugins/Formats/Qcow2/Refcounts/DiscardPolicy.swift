/// Why a cluster is no longer pointed to.
enum FreeingCause: Sendable {
    /// The guest gave it up, by a discard or by zeroing that may unmap.
    case request
    /// A snapshot or the state of a machine that went.
    case snapshot
    /// Its content has moved.
    case other
}

/// Which freed clusters are given back to the host as well (`pass-discard-request`, `-snapshot`, `-other`).
struct DiscardPolicy: Sendable, Equatable {
    var request = true
    var snapshot = true
    var other = false

    func passesDiscards(of cause: FreeingCause) -> Bool {
        switch cause {
        case .request: request
        case .snapshot: snapshot
        case .other: other
        }
    }
}
