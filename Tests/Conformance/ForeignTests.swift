import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

/// What qemu-img makes is read as it was, and what is written here is read so by qemu-img: of every format that both know.
@Suite struct ForeignTests {
    private static let byteCount = (5 << 20) + 512

    @Test(arguments: FormatUnderTest.all) func whatQEMUMakesIsReadAsItWas(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            let folder = try ToolFolder()
            let disk = ToolFolder.mixedDisk(byteCount: Self.byteCount, seed: SystemClock.monotonicNanoseconds())
            guard let image = try folder.image(of: disk, format: format.name) else { return }
            let node = BlockNode(name: "file", driver: try PlainFile(path: image, isReadOnly: true))
            let driver = try format.open(["file": node], isReadOnly: true)
            defer { try? driver.close() }
            // Some formats round sizes up.
            let padding = [UInt8](repeating: 0, count: Int(driver.byteCount) - disk.count)
            guard try driver.readBytes(0, Int(driver.byteCount)) == disk + padding else {
                throw failure(format, "reads another disk than qemu-img wrote")
            }
            // In small steps, across whatever borders there are.
            for start in stride(from: 0, to: disk.count - 3000, by: 32_749) {
                guard try driver.readBytes(UInt64(start), 3000) == Array(disk[start..<start + 3000]) else {
                    throw failure(format, "reads 3000 bytes at \(start) other than the whole disk")
                }
            }
        }
    }

    @Test(arguments: FormatUnderTest.all) func whatIsWrittenIsReadByQEMU(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format), format.files == ["file"] else { return }
            let image = try SubjectImage(format.subject, byteCount: UInt64(Self.byteCount), storage: .folder)
            var model = DiskModel(byteCount: Self.byteCount)
            var driver = try image.open()
            for operation: DiskOperation in [
                .write(1_000_000..<1_300_000, seed: 1), .write(4_000_000..<Self.byteCount, seed: 2),
                .zero(1_100_000..<1_200_000, .mayUnmap), .reopen, .write(10..<5000, seed: 3),
            ] {
                try model.apply(operation, to: &driver) { old in
                    try old.close()
                    return try image.open()
                }
            }
            try driver.close()
            let folder = try ToolFolder()
            guard let disk = try folder.disk(of: image.path("file"), format: format.name) else {
                throw failure(format, "writes what qemu-img cannot read")
            }
            guard disk == model.disk else { throw failure(format, "is read by qemu-img as another disk") }
            // 63: the format has no checks.
            let check = try folder.run("qemu-img", ["check", "-f", format.name, image.path("file")])
            guard [0, 63].contains(check.status) else {
                throw failure(format, "does not pass a check: \(check.output)")
            }
        }
    }
}
