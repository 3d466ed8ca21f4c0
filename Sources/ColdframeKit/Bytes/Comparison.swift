import Glibc

extension UnsafeRawBufferPointer {
    /// Index of the first byte that is another than that of `other`, which has as many; nil if they are equal.
    public func firstDifference(from other: UnsafeRawBufferPointer) -> Int? {
        guard !isEqual(to: other) else { return nil }
        return indices.first { self[$0] != other[$0] }
    }

    /// The same bytes; `other` has as many.
    public func isEqual(to other: UnsafeRawBufferPointer) -> Bool {
        guard let base = baseAddress, let otherBase = other.baseAddress else { return true }
        return memcmp(base, otherBase, count) == 0
    }
}
