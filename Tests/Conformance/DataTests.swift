import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

/// Sizes, boundaries and content, of every format that the agent has.
@Suite struct DataTests {
    @Test(arguments: FormatUnderTest.all) func everySizeIsReadToItsEnd(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            for byteCount: UInt64 in [512, 65536 - 512, 65536, (1 << 20) + 512] {
                let image = try SubjectImage(format.subject, byteCount: byteCount, storage: .memory)
                let node = BlockNode(name: "disk", driver: try image.open())
                guard node.byteCount >= byteCount else {
                    throw failure(format, "has \(node.byteCount) of \(byteCount) bytes")
                }
                let size = node.byteCount
                guard try node.driver.readBytes(0, Int(size)) == [UInt8](repeating: 0, count: Int(size)) else {
                    throw failure(format, "a new disk of \(size) bytes is not zero")
                }
                _ = try node.driver.readBytes(size - 1, 1)
                _ = try node.driver.readBytes(size, 0)
                try expectRefused(format, "a read behind the end") {
                    var byte = [UInt8](repeating: 0, count: 1)
                    try byte.withUnsafeMutableBytes { try node.read(into: $0, at: size) }
                }
                try checkExtents(format, node)
                try node.driver.close()
            }
        }
    }

    /// Extents lie in order, without gaps, and end where the range does.
    private func checkExtents(_ format: FormatUnderTest, _ node: BlockNode) throws {
        let size = node.byteCount
        if !node.isReadOnly { try node.driver.writeBytes([1], at: size / 2) }
        var next: UInt64 = 0
        while next < size {
            let extents = try node.extents(at: next, byteCount: size - next, limit: 2)
            guard !extents.isEmpty, extents.count <= 2 else { throw failure(format, "gives \(extents.count) extents") }
            for extent in extents {
                guard extent.offset == next, extent.byteCount > 0, extent.end <= size else {
                    throw failure(format, "gives the extent \(extent) at \(next) of \(size)")
                }
                if case .zero = extent.kind, extent.offset <= size / 2, extent.end > size / 2, !node.isReadOnly {
                    throw failure(format, "calls written data zero")
                }
                next = extent.end
            }
        }
    }

    @Test(arguments: FormatUnderTest.all) func randomOperationsAgreeWithAModel(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format) else { return }
            try PropertyCampaign(
                subject: format.subject, byteCount: 1 << 18, defaultRuns: 3
            ).run()
        }
    }

    @Test(arguments: FormatUnderTest.all) func aReadOnlyImageIsNotWritten(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            let image = try SubjectImage(format.subject, byteCount: 1 << 17, storage: .memory)
            let before = try image.contents()
            let node = BlockNode(name: "disk", driver: try image.open(isReadOnly: true))
            guard node.isReadOnly else { throw failure(format, "was opened read-only and is not") }
            try expectRefused(format, "a write to a read-only node") {
                try [UInt8]([1]).withUnsafeBytes { try node.write($0, at: 0) }
            }
            if let bearer = node.driver as? any SnapshotBearing {
                try expectRefused(format, "a snapshot of a read-only node") {
                    _ = try bearer.createSnapshot(SnapshotRequest(name: "a", dateSeconds: 0, dateNanoseconds: 0))
                }
            }
            _ = try node.driver.readBytes(0, 4096)
            try node.driver.close()
            guard try image.contents() == before else { throw failure(format, "wrote to a read-only image") }
        }
    }

    /// As many threads as the driver says it takes; the node serialises them if it says one.
    @Test(arguments: FormatUnderTest.all) func threadsDoNotDisturbOneAnother(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format) else { return }
            let image = try SubjectImage(format.subject, byteCount: 4 << 20, storage: .memory)
            let node = BlockNode(name: "disk", driver: try image.open())
            let threads = try (0..<4).map { number in
                try SystemThread.start(name: "conformance") {
                    // Unaligned neighbours: every cluster is written by all.
                    for index in 0..<64 {
                        let bytes = [UInt8](repeating: UInt8(number + 1), count: 4000)
                        try? bytes.withUnsafeBytes { try node.write($0, at: UInt64((index * 4 + number) * 4000)) }
                    }
                }
            }
            for thread in threads { thread.join() }
            for piece in 0..<256 {
                let expected = [UInt8](repeating: UInt8(piece % 4 + 1), count: 4000)
                guard try node.driver.readBytes(UInt64(piece * 4000), 4000) == expected else {
                    throw failure(format, "lost a write of one of several threads at \(piece * 4000)")
                }
            }
            try node.driver.close()
        }
    }
}

func failure(_ format: FormatUnderTest, _ what: String) -> ColdframeError {
    ColdframeError(.corrupt, "\(format.name) \(what)")
}

func expectRefused(_ format: FormatUnderTest, _ what: String, _ body: () throws -> Void) throws {
    do { try body() } catch let error as ColdframeError {
        guard !error.message.isEmpty else { throw failure(format, "refuses \(what) without a word") }
        return
    }
    throw failure(format, "does not refuse \(what)")
}

func isWritable(_ format: FormatUnderTest) throws -> Bool {
    let image = try SubjectImage(format.subject, byteCount: 1 << 17, storage: .memory)
    let driver = try image.open()
    defer { try? driver.close() }
    return !driver.isReadOnly
}
