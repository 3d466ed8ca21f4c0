import ColdframeKit
import Qcow2Format

/// What a hostile image meets: everything that a user could do with it.
///
/// An input is a byte that chooses what is done, and an image. Errors of ours are as good as success; a trap, a hang, and
/// memory without bound are findings.
public enum Qcow2Fuzz {
    public enum Purpose: UInt8, CaseIterable, Sendable {
        case open, read, snapshots, check, write, repair
    }

    public static func run(_ input: some Collection<UInt8>) {
        guard let first = input.first else { return }
        let purposes = Purpose.allCases
        run(purposes[Int(first) % purposes.count], image: Array(input.dropFirst()))
    }

    public static func run(_ purpose: Purpose, image: [UInt8]) {
        guard image.count <= FuzzFile.byteLimit else { return }
        let changes = purpose == .write || purpose == .repair
        let file = FuzzFile(image, isReadOnly: !changes)
        let node = BlockNode(name: "file", driver: file)
        switch purpose {
        case .check: _ = try? Qcow2Check.run(on: node, repair: .nothing, observer: Silence())
        case .repair: _ = try? Qcow2Check.run(on: node, repair: .all, observer: Silence())
        case .open, .read, .snapshots, .write:
            guard let disk = open(node, isReadOnly: !changes) else { return }
            _ = try? disk.information()
            if purpose != .open { read(disk) }
            if purpose == .snapshots { readSnapshots(disk) }
            if purpose == .write { change(disk) }
            try? disk.close()
        }
    }

    private static func open(_ node: BlockNode, isReadOnly: Bool) -> Qcow2Driver? {
        guard let image = try? Qcow2Image.read(node) else { return nil }
        let data = image.hasDataFile ? FuzzFile([UInt8](repeating: 7, count: 65536), isReadOnly: isReadOnly) : nil
        var options = Qcow2Driver.Options()
        options.isReadOnly = isReadOnly
        options.l2CacheByteLimit = 1 << 16
        options.refcountCacheByteLimit = 1 << 16
        let disk = try? Qcow2Driver(
            image, backing: nil, dataFile: data.map { BlockNode(name: "data", driver: $0) }, options: options)
        _ = try? disk?.loadBitmaps()
        return disk
    }

    private static let readByteLimit: UInt64 = 1 << 18

    private static func read(_ disk: any BlockDriver) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer { buffer.deallocate() }
        let size = disk.byteCount
        var offset: UInt64 = 0
        while offset < min(size, readByteLimit) {
            let count = Int(min(4096, size - offset))
            try? disk.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
            offset += UInt64(count)
        }
        // The end as well, which a hostile size puts anywhere.
        if size > 512 { try? disk.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<512]), at: size - 512) }
        _ = try? disk.extents(at: 0, byteCount: min(size, 1 << 30), limit: 64)
    }

    private static func readSnapshots(_ disk: Qcow2Driver) {
        for info in disk.snapshots.prefix(4) {
            if let view = try? disk.openSnapshot(id: info.id) { read(view) }
            if let state = try? disk.openVMState(ofSnapshot: info.id) {
                let buffer = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: Int(min(state.byteCount, 1 << 16)), alignment: 16)
                defer { buffer.deallocate() }
                try? state.read(into: buffer, at: 0)
            }
        }
    }

    private static func change(_ disk: Qcow2Driver) {
        let size = disk.byteCount
        let bytes = [UInt8](repeating: 0x5A, count: 3000)
        for offset in [0, 1000, 20_000] where size >= UInt64(offset + bytes.count) {
            bytes.withUnsafeBytes { buffer in try? disk.write(buffer, at: UInt64(offset), flags: []) }
        }
        if size >= 20_000 {
            try? disk.writeZeroes(at: 0, byteCount: 5000, flags: .mayUnmap)
            try? disk.discard(at: 8000, byteCount: 9000)
        }
        _ = try? disk.createSnapshot(SnapshotRequest(name: "more", dateSeconds: 1, dateNanoseconds: 0))
        if size >= 3000 { bytes.withUnsafeBytes { buffer in try? disk.write(buffer, at: 0, flags: []) } }
        for info in disk.snapshots.prefix(3) { try? disk.revert(toSnapshot: info.id) }
        if let writer = try? disk.beginVMState() {
            bytes.withUnsafeBytes { buffer in try? writer.append(buffer) }
            if let first = disk.snapshots.first {
                _ = try? writer.attach(toSnapshot: first.id, annotation: [1], guestClockNanoseconds: 0)
            }
            try? writer.abandon()
        }
        for info in disk.snapshots.prefix(3) { try? disk.deleteSnapshot(id: info.id) }
        if size <= 1 << 20 {
            try? disk.resize(toByteCount: (size + 5000) & ~511)
            try? disk.resize(toByteCount: 1024)
        }
        _ = try? disk.reclaimLeaks()
        try? disk.flush()
    }

    private final class Silence: ImageCheckObserver {
        func found(_ finding: String) {}
        func progressed(done: UInt64, total: UInt64) throws(ColdframeError) {}
    }
}
