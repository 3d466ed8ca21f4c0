import CFuse3
import LinuxSystem

/// What a worker needs to answer one read: room for the pieces of the reply, and a buffer for what must be copied.
///
/// Taken from a pool for the time of one request and used by one thread at a time.
final class Scratch: @unchecked Sendable {
    // Unchecked: the pointers are constant, and the pool gives each to one thread at a time.
    /// The greatest read that the kernel is allowed to ask for (`max_pages` of the connection).
    static let readByteCount = 1 << 20
    /// Pieces of one reply; the kernel takes at most 1024 (`IOV_MAX`), one of which is the header.
    static let vectorCapacity = 512

    let buffer: UnsafeMutableRawBufferPointer
    let vectors: UnsafeMutablePointer<iovec>

    init() {
        // Pages that no copy ever touches take no memory.
        buffer = .allocate(byteCount: Self.readByteCount, alignment: ReadOnlyMapping.pageByteCount)
        vectors = .allocate(capacity: Self.vectorCapacity)
    }

    deinit {
        buffer.deallocate()
        vectors.deallocate()
    }
}

/// The scratch areas of one export: as many as there were requests at once.
final class ScratchPool: Sendable {
    private let free = Locked<[Scratch]>([])

    func take() -> Scratch {
        free.withLock { $0.popLast() } ?? Scratch()
    }

    func give(_ scratch: Scratch) {
        free.withLock { $0.append(scratch) }
    }
}

/// Zeros to reply with, shared by all exports.
enum ZeroArea {
    static let byteCount = 64 << 10
    /// Never written, never freed.
    nonisolated(unsafe) static let pointer: UnsafeRawPointer = {
        let area = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: ReadOnlyMapping.pageByteCount)
        area.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        return UnsafeRawPointer(area)
    }()
}
