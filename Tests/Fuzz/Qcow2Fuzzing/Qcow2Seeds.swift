import ColdframeKit
import LinuxSystem
import Qcow2Format

/// Small sound images of every kind, from which a fuzzer starts.
public enum Qcow2Seeds {
    public static func all() throws -> [(name: String, image: [UInt8])] {
        var seeds: [(String, [UInt8])] = []
        for (name, change) in kinds {
            var options = Qcow2Create.Options(diskByteCount: 48 << 10)
            options.clusterByteCount = 512
            change(&options)
            seeds.append((name, try image(options)))
        }
        return seeds
    }

    private static let kinds: [(String, @Sendable (inout Qcow2Create.Options) -> Void)] = [
        ("v3", { _ in }), ("v2", { $0.version = 2 }), ("zstd", { $0.compressesWithZstd = true }),
        ("wide", { $0.refcountBits = 64 }), ("narrow", { $0.refcountBits = 8 }),
        ("lazy", { $0.hasLazyRefcounts = true }),
        (
            "subclusters",
            {
                $0.clusterByteCount = 16384
                $0.hasExtendedL2 = true
            }
        ),
    ]

    private static func image(_ options: Qcow2Create.Options) throws -> [UInt8] {
        let node = BlockNode(name: "file", driver: FuzzFile([], isReadOnly: false))
        try Qcow2Create.write(options, into: node)
        let disk = try Qcow2Driver(try Qcow2Image.read(node), backing: nil, options: .init())
        let hasBitmaps = options.version == 3
        if hasBitmaps { _ = try disk.loadBitmaps() }
        let bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
        try bytes.withUnsafeBytes { try disk.write($0, at: 1000, flags: []) }
        let state = try disk.beginVMState()
        let info = try disk.createSnapshot(SnapshotRequest(name: "one", dateSeconds: 1, dateNanoseconds: 2))
        try bytes.withUnsafeBytes { try state.append(UnsafeRawBufferPointer(rebasing: $0[..<2000])) }
        _ = try state.attach(toSnapshot: info.id, annotation: [1, 2], guestClockNanoseconds: 3)
        try bytes.withUnsafeBytes { try disk.write($0, at: 4000, flags: []) }
        let unit = Int(disk.compressionUnitByteCount)
        let packed = [UInt8](repeating: 9, count: unit)
        try packed.withUnsafeBytes { try disk.writeCompressed($0, at: UInt64(32 << 10) / UInt64(unit) * UInt64(unit)) }
        try disk.writeZeroes(at: 0, byteCount: 2048, flags: [])
        _ = try disk.createSnapshot(SnapshotRequest(name: "two", dateSeconds: 3, dateNanoseconds: 4))
        try disk.discard(at: 16 << 10, byteCount: 16 << 10)
        if hasBitmaps {
            var bits = DirtyBits(diskByteCount: disk.byteCount, granularity: 512)
            bits.set(at: 1000, byteCount: 9000)
            var state = DirtyBitmap.State(name: "bitmap")
            state.isPersistent = true
            try disk.storeBitmaps([DirtyBitmap(bits: bits, state: state)])
        }
        try disk.close()
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(node.byteCount), alignment: 16)
        defer { copy.deallocate() }
        try node.driver.read(into: copy, at: 0)
        return Array(copy)
    }
}
