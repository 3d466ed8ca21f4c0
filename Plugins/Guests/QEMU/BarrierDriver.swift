import ColdframeKit
import LinuxSystem
import QMPWire

/// The disk that no device uses: a flush of it, while a capture is armed, says that QEMU has stopped the vCPUs, has
/// drained and has flushed everything else. As long as the flush has no reply, the guest stays stopped.
///
/// Its NBD connection has workers of its own, one of which waits here.
final class BarrierDriver: BlockDriver {
    private let state = Locked(Phase.idle)
    private let released = ConditionVariable()

    private enum Phase {
        case idle
        case armed(@Sendable () -> Void)
        case held
        /// The limit passed, QEMU has its reply, and nobody has asked since.
        case expired
    }

    /// However long the core takes, a guest is not held longer than this.
    static let holdLimitMilliseconds = 1_000

    /// The next flush is held; `onHeld` is called on its thread when it has come.
    func arm(onHeld: @escaping @Sendable () -> Void) {
        state.withLock { $0 = .armed(onHeld) }
    }

    /// Lets a held flush go; without one, the barrier is as before arming. False: the hold had passed its limit, so that
    /// the guest ran before this call. Idempotent, any thread.
    @discardableResult
    func release() -> Bool {
        let wasInTime = state.withLock { phase in
            defer { phase = .idle }
            return if case .expired = phase { false } else { true }
        }
        released.broadcast()
        return wasInTime
    }

    func flush() throws(ColdframeError) {
        let onHeld: (@Sendable () -> Void)? = state.withLock { phase in
            guard case .armed(let onHeld) = phase else { return nil }
            phase = .held
            return onHeld
        }
        guard let onHeld else { return }
        onHeld()
        if released.waitFor(milliseconds: Self.holdLimitMilliseconds, { !self.isHeld }) { return }
        // A release that comes before this line is in time: the reply has not gone out.
        state.withLock { if case .held = $0 { $0 = .expired } }
    }

    private var isHeld: Bool {
        state.withLock { if case .held = $0 { true } else { false } }
    }

    // MARK: A disk of zeros

    let driverName = "coldframe-barrier"
    let byteCount: UInt64 = 4096
    let isReadOnly = false
    let threadModel = ThreadModel.parallel
    let displayFilename = "barrier"

    func information() throws(ColdframeError) -> BlockInformation { BlockInformation() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Nothing is kept: no device writes here.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {}
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {}
    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {}

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        [Extent(offset: offset, byteCount: byteCount, kind: .zero(allocated: false))]
    }

    func close() throws(ColdframeError) {}
}
