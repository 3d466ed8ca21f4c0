import ColdframeKit
import LinuxSystem
import Synchronization

// Zeroing, discarding, and where a file has holes.

extension FileDriver {
    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        if byteCount == 0 { return }
        let end = try checkedEnd(offset, byteCount)
        do {
            defer { changes.note() }
            // A direct write that ends inside a block cuts the file to its size afterwards: grow in step with those.
            if let direct, !mode.isBlockDevice { try direct.grow(to: end, size: size) }
            try zero(offset, byteCount, flags)
        } catch {
            throw failed(error, "Could not write \(byteCount) zeros at \(offset) of")
        }
        noteSize(atLeast: end)
        if flags.contains(.forceUnitAccess) { try flush() }
    }

    private func zero(_ offset: UInt64, _ byteCount: UInt64, _ flags: WriteFlags) throws(SystemError) {
        if flags.contains(.mayUnmap), mode.unmaps, try punchHole(offset, byteCount) {
            return try growFile(to: offset + byteCount)
        }
        if !cannotZero.load(ordering: .relaxed) {
            // A block device has a fixed size, which the call must not try to change.
            let zeroMode: FallocateMode = mode.isBlockDevice ? .zeroRangeKeepingSize : .zeroRange
            do {
                return try file.allocate(mode: zeroMode, offset: offset, byteCount: byteCount)
            } catch {
                guard Self.meansUnsupported(error) else { throw error }
                // A block device refuses unaligned ranges only.
                if !mode.isBlockDevice { cannotZero.store(true, ordering: .relaxed) }
            }
        }
        // A hole reads as zeros; reserving it again keeps the promise that the space is there.
        if !mode.isBlockDevice, try punchHole(offset, byteCount) {
            do {
                return try file.allocate(mode: .reserve, offset: offset, byteCount: byteCount)
            } catch {
                guard Self.meansUnsupported(error) else { throw error }
                return try growFile(to: offset + byteCount)
            }
        }
        if flags.contains(.noFallback) { throw SystemError(errno: Errno.notSupported, operation: "fallocate") }
        try writeZeroBytes(offset, byteCount)
    }

    /// False if the filesystem or device cannot do it.
    private func punchHole(_ offset: UInt64, _ byteCount: UInt64) throws(SystemError) -> Bool {
        if cannotPunch.load(ordering: .relaxed) { return false }
        do {
            try file.allocate(mode: .punchHole, offset: offset, byteCount: byteCount)
            return true
        } catch {
            guard Self.meansUnsupported(error) else { throw error }
            if !mode.isBlockDevice { cannotPunch.store(true, ordering: .relaxed) }
            return false
        }
    }

    /// Makes the file at least `end` long without allocating what is between: one zero byte at its end, which is inside
    /// the request, so that a file that grows meanwhile is not cut.
    private func growFile(to end: UInt64) throws(SystemError) {
        if mode.isBlockDevice || end == 0 || end <= byteCount { return }
        try writeZeroBytes(end - 1, 1)
    }

    private func writeZeroBytes(_ offset: UInt64, _ byteCount: UInt64) throws(SystemError) {
        var done: UInt64 = 0
        while done < byteCount {
            let count = Int(min(byteCount - done, UInt64(Self.zeroPiece.count)))
            let piece = UnsafeRawBufferPointer(rebasing: Self.zeroPiece[..<count])
            if let direct {
                try direct.write(piece, at: offset + done, size: size)
            } else {
                try file.pwriteAll(piece, at: offset + done)
            }
            done += UInt64(count)
        }
    }

    /// Zeros to write from, aligned for direct I/O; never freed, never changed.
    nonisolated(unsafe) private static let zeroPiece: UnsafeRawBufferPointer = {
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        piece.initializeMemory(as: UInt8.self, repeating: 0)
        return UnsafeRawBufferPointer(piece)
    }()

    static func meansUnsupported(_ error: SystemError) -> Bool {
        [Errno.notSupported, Errno.notImplemented, Errno.invalid, Errno.noDevice, Errno.notTTY].contains(error.errno)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        guard mode.unmaps, !isReadOnly, byteCount > 0 else { return }
        do {
            defer { changes.note() }
            _ = try punchHole(offset, byteCount)
            discards.succeeded.add(1, ordering: .relaxed)
            discards.byteCount.add(byteCount, ordering: .relaxed)
        } catch {
            discards.failed.add(1, ordering: .relaxed)
            throw failed(error, "Could not discard \(byteCount) bytes at \(offset) of")
        }
    }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        let end = try checkedEnd(offset, byteCount)
        var extents: [Extent] = []
        var position = offset
        do {
            while position < end, extents.count < max(limit, 1) {
                let (next, isData) = try segment(at: position, end: end)
                extents.append(
                    Extent(
                        offset: position, byteCount: next - position,
                        kind: isData ? .data(source: self, hostOffset: position) : .zero(allocated: false)))
                position = next
            }
        } catch {
            throw failed(error, "Could not look for holes in")
        }
        return extents.isEmpty ? [Extent(offset: offset, byteCount: 0, kind: .zero(allocated: false))] : extents
    }

    /// The end of the data or hole at `position`, at most `end`.
    private func segment(at position: UInt64, end: UInt64) throws(SystemError) -> (next: UInt64, isData: Bool) {
        do {
            // Nothing but a hole up to the end of the file, or behind it.
            guard let data = try file.seekData(from: position) else { return (end, false) }
            if data > position { return (min(data, end), false) }
            // The file may have been changed between the calls: always go forward.
            guard let hole = try file.seekHole(from: position), hole > position else { return (end, true) }
            return (min(hole, end), true)
        } catch {
            // Block devices, and filesystems that do not know: all of it may be data.
            guard Self.meansUnsupported(error) else { throw error }
            return (end, true)
        }
    }
}

/// What became of a file's discards.
final class DiscardCounts: Sendable {
    let succeeded = Atomic<UInt64>(0)
    let failed = Atomic<UInt64>(0)
    let byteCount = Atomic<UInt64>(0)
}

extension FileDriver: DiscardCounting {
    var discardCounts: (succeeded: UInt64, failed: UInt64, byteCount: UInt64) {
        (
            discards.succeeded.load(ordering: .relaxed), discards.failed.load(ordering: .relaxed),
            discards.byteCount.load(ordering: .relaxed)
        )
    }
}
