import ColdframeKit

extension Qcow2Driver: Layered {
    public func allocation(
        at offset: UInt64, byteCount: UInt64
    ) throws(ColdframeError) -> (isAllocated: Bool, byteCount: UInt64) {
        let epoch = store.epochs.enter()
        defer { store.epochs.leave(epoch) }
        var position = offset
        let end = offset + byteCount
        var answer: Bool?
        // Neighbours that are alike are one answer, up to a bound of work.
        for _ in 0..<Self.runLimit where position < end {
            let run = try map.lookup(GuestOffset(position), byteCount: end - position)
            let isAllocated = if case .unallocated = run.kind { false } else { true }
            if let answer, answer != isAllocated { break }
            answer = isAllocated
            position += run.byteCount
        }
        return (answer ?? false, position - offset)
    }

    private static var runLimit: Int { 1024 }
}
