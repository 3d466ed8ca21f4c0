import ColdframeKit
import QAPI

/// Puts `preallocate` above a node.
struct PreallocateFactory: BlockDriverFactory {
    let driverName = "preallocate"
    let isFormat = false
    let isFilter = true
    let reopening = ReopeningWay.anotherDriver

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsPreallocate = try own(options.branch)
        let file = try await context.child("file", branch.file, role: .filtered)
        return PreallocateDriver(
            file, ahead: try PreallocateDriver.Ahead(branch), isReadOnly: context.isReadOnly || file.isReadOnly)
    }
}

extension PreallocateDriver {
    /// How far ahead of the data space is allocated.
    struct Ahead: Sendable {
        /// Bytes behind the data.
        var byteCount: UInt64 = 128 << 20
        /// The file ends at a multiple of this.
        var alignment: UInt64 = 1 << 20
    }
}

extension PreallocateDriver.Ahead {
    /// Throws QEMU's text.
    init(_ options: BlockdevOptionsPreallocate) throws {
        for (name, value) in [("prealloc-align", options.preallocAlign), ("prealloc-size", options.preallocSize)]
        where value ?? 0 < 0 {
            throw ColdframeError(
                .invalidArgument, "Parameter '\(name)' expects a non-negative number below 2^64")
        }
        if let alignment = options.preallocAlign {
            guard alignment % 512 == 0 else {
                throw ColdframeError(
                    .invalidArgument, "prealloc-align parameter of preallocate filter is not aligned to 512")
            }
            self.alignment = max(UInt64(alignment), 1)
        }
        if let byteCount = options.preallocSize { self.byteCount = UInt64(byteCount) }
    }

    /// Where a file ends whose data ends at `dataEnd`; nil behind 2^63.
    func end(forDataEnd dataEnd: UInt64) -> UInt64? {
        let (end, overflow) = dataEnd.addingReportingOverflow(byteCount)
        guard !overflow, end <= UInt64(Int64.max) - alignment else { return nil }
        return (end + alignment - 1) / alignment * alignment
    }
}
