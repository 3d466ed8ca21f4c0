import LinuxSystem
import Synchronization

/// A driver's child that may come, change or go while the driver is open: a backing node.
public final class ChildSlot: Sendable {
    /// Keeps what `pointer` points to alive.
    private let owner: Locked<BlockNode?>
    /// 0 for none. Read without a lock by requests: it changes only while nobody is inside.
    private let pointer: Atomic<UInt>

    public init(_ node: BlockNode? = nil) {
        owner = Locked(node)
        pointer = Atomic(Self.address(of: node))
    }

    /// The child now. Any thread, inside a gate or not.
    public var node: BlockNode? { owner.withLock { $0 } }

    /// The same for a request that has passed a gate: no lock.
    @inline(__always)
    public var current: BlockNode? {
        guard let address = UnsafeRawPointer(bitPattern: pointer.load(ordering: .acquiring)) else { return nil }
        // Safe: `owner` holds what `pointer` points to, and both change only while no request is inside.
        return Unmanaged<BlockNode>.fromOpaque(address).takeUnretainedValue()
    }

    /// Only while the gates of all who reach the driver are closed and nobody is inside.
    public func set(_ node: BlockNode?) {
        owner.withLock { owner in
            pointer.store(Self.address(of: node), ordering: .releasing)
            owner = node
        }
    }

    private static func address(of node: BlockNode?) -> UInt {
        node.map { UInt(bitPattern: Unmanaged.passUnretained($0).toOpaque()) } ?? 0
    }
}
