import LinuxSystem

/// Buffers of one size that are used again, so that copying allocates nothing once it runs. Any thread.
public final class CopyBuffers: Sendable {
    /// Buffers that are kept when nobody uses them.
    private static let keptCount = 4
    public let byteCount: Int
    private let free = Locked<[UInt]>([])

    public init(byteCount: Int) { self.byteCount = byteCount }

    deinit {
        for address in free.withLock({ $0 }) { UnsafeMutableRawPointer(bitPattern: address)?.deallocate() }
    }

    /// Runs `body` with a buffer of at least `byteCount` bytes.
    public func with<T, E: Error>(_ body: (UnsafeMutableRawPointer) throws(E) -> T) throws(E) -> T {
        let buffer =
            free.withLock { $0.popLast() }.flatMap { UnsafeMutableRawPointer(bitPattern: $0) }
            ?? .allocate(byteCount: byteCount, alignment: 4096)
        defer {
            let isKept = free.withLock { free in
                guard free.count < Self.keptCount else { return false }
                free.append(UInt(bitPattern: buffer))
                return true
            }
            if !isKept { buffer.deallocate() }
        }
        return try body(buffer)
    }
}
