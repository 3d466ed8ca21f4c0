import ColdframeKit
import LinuxSystem

/// Makes a new image. The header is written last, so that a crash leaves none.
struct VdiCreation: Sendable {
    private let header: VdiHeader

    /// - Parameter blockByteCount: 1 MiB, which every program reads; smaller only for tests.
    init(diskByteCount: UInt64, isFixed: Bool, blockByteCount: UInt64 = 1 << 20) throws(ColdframeError) {
        let limit = UInt64(VdiHeader.blockCountLimit) * blockByteCount
        guard diskByteCount <= limit else {
            throw ColdframeError(
                .unsupported,
                "Unsupported VDI image size (size is 0x\(String(diskByteCount, radix: 16)), max supported is "
                    + "0x\(String(limit, radix: 16)))")
        }
        header = VdiHeader(
            diskByteCount: diskByteCount, blockByteCount: blockByteCount,
            blockCount: UInt32((diskByteCount + blockByteCount - 1) / blockByteCount), isFixed: isFixed)
    }

    /// Blocks. Durable when it returns; what the file held is gone.
    func run(into file: BlockNode) throws(ColdframeError) {
        guard let resizable = file.driver as? any Resizable else {
            throw ColdframeError(
                .unsupported,
                "Node '\(file.name)' cannot change its size: driver '\(file.driver.driverName)' is not resizable")
        }
        try resizable.resize(toByteCount: 0)
        let blocks = header.isFixed ? UInt64(header.blockCount) * header.blockByteCount : 0
        try resizable.resize(toByteCount: header.dataOffset + blocks)
        var entries: [UInt8] = []
        entries.reserveCapacity(4 * Int(header.blockCount))
        for block in 0..<header.blockCount {
            entries.appendLittleEndian(header.isFixed ? block : VdiImage.unallocated)
        }
        try entries.withBytes { (bytes) throws(ColdframeError) in try file.direct.write(bytes, at: header.mapOffset) }
        try file.direct.flush()
        try header.encoded(imageUUID: Self.randomUUID(), changeUUID: Self.randomUUID()).withBytes {
            (bytes) throws(ColdframeError) in try file.direct.write(bytes, at: 0)
        }
        try file.direct.flush()
    }

    /// Version 4, in the byte order of the format.
    private static func randomUUID() -> [UInt8] {
        var uuid = SystemRandom.bytes(16)
        uuid[7] = uuid[7] & 0x0F | 0x40
        uuid[8] = uuid[8] & 0x3F | 0x80
        return uuid
    }
}
