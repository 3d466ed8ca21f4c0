import ColdframeKit

extension QuorumDriver {
    /// The pattern `fifo`: the first child that can be read, and has not missed a write there. A write at the same time may be seen or
    /// not; one that is over is not read from a child that has missed it.
    func readFirst(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        var last = ColdframeError(.io, "No child of quorum '\(reports.nodeName)' has all that was written there")
        for child in children where !child.hasMissed(range) {
            let error = child.attempt(range) { (io) throws(ColdframeError) in try io.read(into: buffer, at: offset) }
            guard let error else { return }
            reports.bad(child, .read, range, error)
            last = error
        }
        throw last
    }

    /// The pattern `quorum`: what so many children hold.
    func readByVote(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        let range = offset..<offset + UInt64(buffer.count)
        try holding(range) { () throws(ColdframeError) in
            let children = children
            let poll = QuorumPoll(children, into: buffer, at: offset) { errors(of: $0, children, $1) }
            let outvoted = try result(of: poll, into: buffer, at: offset)
            guard settings.rewritesCorrupted else { return }
            for child in outvoted {
                let error = child.attempt(range) { (io) throws(ColdframeError) in
                    try io.write(UnsafeRawBufferPointer(buffer), at: offset)
                }
                // Where it fails the child is as it was, and is reported again by the next read.
                if error == nil { child.catchUp(range) }
            }
        }
    }

    /// Counts the votes, reports, and puts what has won into `buffer`. Returns the children that hold something else.
    private func result(
        of poll: QuorumPoll, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(ColdframeError) -> [QuorumChild] {
        let range = offset..<offset + UInt64(buffer.count)
        let children = children
        reportErrors(of: children, poll.errors, .read, range)
        guard poll.successCount >= settings.threshold else {
            reports.failure(range)
            throw QuorumBallot.winner(of: poll.errors) ?? ColdframeError(.io, "Too few children could be read")
        }
        if settings.verifies, let difference = poll.firstDifference { reports.difference(range, at: difference) }
        // A child that is known to be behind has no vote.
        let votes = poll.versions.map { version in version.count { !children[$0].hasMissed(range) } }
        guard let winner = QuorumBallot.winner(of: votes), votes[winner] >= settings.threshold else {
            reports.failure(range)
            throw ColdframeError(
                .io,
                "Quorum '\(reports.nodeName)': fewer than \(settings.threshold) children hold the same of \(range.count) "
                    + "bytes at \(offset)")
        }
        if !poll.versions[winner].contains(poll.shown) {
            let child = children[poll.versions[winner][0]]
            let error = child.attempt(range) { (io) throws(ColdframeError) in try io.read(into: buffer, at: offset) }
            if let error {
                reports.bad(child, .read, range, error)
                throw error
            }
        }
        // In QEMU's order: the last first.
        let bad = poll.versions.indices.reversed().filter { $0 != winner }.flatMap { poll.versions[$0].reversed() }
        for index in bad { reports.bad(children[index], .read, range) }
        return bad.map { children[$0] }
    }
}
