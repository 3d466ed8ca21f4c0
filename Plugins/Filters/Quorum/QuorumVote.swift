import ColdframeKit

/// Which children of a quorum hold the same. They are numbered from 0.
struct QuorumBallot {
    /// Of each child a number that it shares with those that hold the same so far; nil of those that could not be read.
    private var version: [Int?]

    init(childCount: Int) { version = [Int?](repeating: 0, count: childCount) }

    func isCounted(_ child: Int) -> Bool { version[child] != nil }

    /// It could not be read.
    mutating func drop(_ child: Int) { version[child] = nil }

    /// The next piece has been read: children that held the same so far, and do not here, part.
    mutating func part(_ areEqual: (Int, Int) -> Bool) {
        let old = version
        /// The first child of each version, by its new number.
        var first: [Int] = []
        for child in old.indices {
            guard let own = old[child] else { continue }
            let match = first.first { old[$0] == own && areEqual($0, child) }
            version[child] = match ?? child
            if match == nil { first.append(child) }
        }
    }

    /// The children of each version, in the order of their first child.
    var versions: [[Int]] {
        var versions: [[Int]] = []
        for child in version.indices {
            guard let own = version[child] else { continue }
            if let index = versions.firstIndex(where: { version[$0[0]] == own }) {
                versions[index].append(child)
            } else {
                versions.append([child])
            }
        }
        return versions
    }

    /// Index in `versions` of the one with most votes and, as in QEMU, among equals of the one whose first child comes last.
    static func winner(of votes: [Int]) -> Int? {
        votes.indices.reversed().max { votes[$0] < votes[$1] }
    }

    /// The error that most children ended with, chosen likewise; nil without errors.
    static func winner(of errors: [ColdframeError?]) -> ColdframeError? {
        let errors = errors.compactMap(\.self)
        var kinds: [(error: ColdframeError, votes: Int)] = []
        for error in errors {
            if let index = kinds.firstIndex(where: { $0.error.errno == error.errno }) {
                kinds[index].votes += 1
            } else {
                kinds.append((error, 1))
            }
        }
        return winner(of: kinds.map(\.votes)).map { kinds[$0].error }
    }
}
