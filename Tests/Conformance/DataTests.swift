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
                try checkSize(format, node)
                try checkExtents(format, node)
                try node.driver.close()
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
            try checkReadOnly(format, node)
            _ = try node.driver.readBytes(0, 4096)
            try node.driver.close()
            guard try image.contents() == before else { throw failure(format, "wrote to a read-only image") }
        }
    }

    @Test(arguments: FormatUnderTest.all) func threadsDoNotDisturbOneAnother(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format) else { return }
            let image = try SubjectImage(format.subject, byteCount: 4 << 20, storage: .memory)
            let node = BlockNode(name: "disk", driver: try image.open())
            try checkThreads(format, node)
            try node.driver.close()
        }
    }
}

func isWritable(_ format: FormatUnderTest) throws -> Bool {
    let image = try SubjectImage(format.subject, byteCount: 1 << 17, storage: .memory)
    let driver = try image.open()
    defer { try? driver.close() }
    return !driver.isReadOnly
}
