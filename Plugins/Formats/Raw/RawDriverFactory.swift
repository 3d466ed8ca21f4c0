import ColdframeKit
import LinuxSystem
import QAPI

/// Opens raw windows, and makes raw images.
struct RawDriverFactory: BlockDriverFactory {
    let driverName = "raw"
    let isFormat = true

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        let branch: BlockdevOptionsRaw = try own(options.branch)
        let offset = try byteCount(branch.offset, "offset") ?? 0
        let size = try byteCount(branch.size, "size")
        // It has nothing of its own there: as in QEMU it needs what its users need of it, and forbids what they forbid.
        let child = try await context.child("file", branch.file, role: .filtered)
        try check(offset: offset, size: size, within: child.byteCount)
        return RawDriver(
            child: child, offset: offset, fixedSize: size, isReadOnly: context.isReadOnly || child.isReadOnly)
    }

    /// QEMU's rules for a window.
    private func check(offset: UInt64, size: UInt64?, within whole: UInt64) throws(ColdframeError) {
        guard offset <= whole else {
            throw ColdframeError(
                .invalidArgument,
                "Offset (\(offset)) cannot be greater than size of the containing file (\(whole))")
        }
        guard let size else { return }
        guard size <= whole - offset else {
            throw ColdframeError(
                .invalidArgument,
                "The sum of offset (\(offset)) and size (\(size)) has to be smaller or equal to the actual size of the "
                    + "containing file (\(whole))")
        }
        guard size % 512 == 0 else {
            throw ColdframeError(.invalidArgument, "Specified size is not multiple of 512")
        }
    }

    private func byteCount(_ value: Int64?, _ name: String) throws(ColdframeError) -> UInt64? {
        guard let value else { return nil }
        guard value >= 0 else {
            throw ColdframeError(.invalidArgument, "Parameter '\(name)' expects a non-negative number of bytes")
        }
        return UInt64(value)
    }

    /// The node gets the size and reads as zeros.
    func create(_ options: BlockdevCreateOptions, context: any CreateContext) async throws {
        let branch: BlockdevCreateOptionsRaw = try own(options.branch)
        let target = try await context.target(branch.file)
        guard let resizable = target.driver as? any Resizable else {
            throw ColdframeError(
                .unsupported,
                "Node '\(target.name)' cannot change its size: driver '\(target.driver.driverName)' is not resizable")
        }
        let size = branch.size
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            // What was there before goes with the old size.
            try resizable.resize(toByteCount: 0)
            try resizable.resize(toByteCount: size)
        }
        context.advance(byteCount: size)
    }
}
