import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import Testing

/// Failed calls, crashes, short and hostile files, of every format that the agent has.
@Suite struct FailureTests {
    private static let preparation: [DiskOperation] = [
        .write(0..<50_000, seed: 1), .create(state: nil), .write(10_000..<90_000, seed: 2), .flush,
    ]

    @Test(arguments: FormatUnderTest.all) func aFailedCallIsAnErrorAndNoDamage(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format) else { return }
            let campaign = FaultCampaign(
                subject: format.subject, byteCount: 1 << 17, preparation: Self.preparation)
            for file in format.files {
                try campaign.run(.write(5_000..<100_000, seed: 3), failing: file)
                try campaign.run(.create(state: 10_000), failing: file)
            }
        }
    }

    @Test(arguments: FormatUnderTest.all) func aCrashLeavesTheOldOrTheNew(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            guard try isWritable(format) else { return }
            let campaign = CrashCampaign(
                subject: format.subject, byteCount: 1 << 17,
                operations: Self.preparation + [
                    .write(0..<4096, seed: 3), .revert(choice: 0), .create(state: 5_000), .delete(choice: 0),
                    .write(1_000..<70_000, seed: 4), .flush,
                ])
            try campaign.runKills(stride: 2)
            try campaign.runPowerLosses(rounds: 30, seed: 7)
        }
    }

    @Test(arguments: FormatUnderTest.all) func aShortFileIsAnErrorOrReadsAsFarAsItGoes(
        format: FormatUnderTest
    ) async throws {
        try await onBlockingThread {
            let whole = try prepared(format)
            for share in 0..<16 {
                let bytes = whole["file"] ?? []
                try open(format, whole, "file", Array(bytes.prefix(bytes.count * share / 16)))
            }
        }
    }

    @Test(arguments: FormatUnderTest.all) func aDamagedFileIsAnErrorAndNeverACrash(
        format: FormatUnderTest
    ) async throws {
        try await onBlockingThread {
            try FuzzCampaign(subject: format.subject, contents: try prepared(format)).run()
        }
    }

    /// An image with some content; the files by name.
    private func prepared(_ format: FormatUnderTest) throws -> [String: [UInt8]] {
        let image = try SubjectImage(format.subject, byteCount: 1 << 17, storage: .memory)
        var driver = try image.open()
        if !driver.isReadOnly {
            var model = DiskModel(byteCount: Int(driver.byteCount))
            for operation in Self.preparation { try model.apply(operation, to: &driver) { $0 } }
        }
        try driver.close()
        return try image.contents()
    }

    /// Opens the image with one file replaced and reads what can be read: errors of ours are as good as success.
    private func open(
        _ format: FormatUnderTest, _ whole: [String: [UInt8]], _ file: String, _ bytes: [UInt8]
    ) throws {
        var contents = whole
        contents[file] = bytes
        let image = try SubjectImage(format.subject, contents: contents)
        do {
            let driver = try image.open(isReadOnly: true)
            // A hostile size may be anything.
            let count = min(driver.byteCount, 1 << 18)
            _ = try driver.readBytes(0, Int(count))
            _ = try driver.extents(at: 0, byteCount: count, limit: 64)
            try driver.close()
        } catch is ColdframeError {}
    }
}

/// Options of somebody else are refused, and what an image asks for it does not get by itself.
@Suite struct RefusalTests {
    @Test(arguments: FormatUnderTest.all) func optionsOfAnotherDriverAreRefused(format: FormatUnderTest) async throws {
        let options = BlockdevOptions(driver: format.name, branch: QAPIEmpty())
        try await onBlockingThread {
            let outcome = Outcome<Bool>()
            Task { @AgentActor in
                do {
                    _ = try await format.factory.open(options, context: EmptyGraph())
                    outcome.set(.success(false))
                } catch { outcome.set(.success(error is ColdframeError)) }
            }
            guard try outcome.wait().get() else { throw failure(format, "takes options of another driver") }
        }
    }

    /// An image with a backing file, made by `qemu-img` where it can: the file is asked for at the gate, by name, and
    /// nothing else happens.
    @Test(arguments: FormatUnderTest.all) func noFileNameIsFollowedWithoutTheGate(format: FormatUnderTest) async throws
    {
        try await onBlockingThread {
            let folder = try ToolFolder()
            let (base, top) = (folder.path("base"), folder.path("top"))
            try folder.require("qemu-img", "create", "-q", "-f", "raw", base, "1M")
            let arguments = ["create", "-q", "-f", format.name, "-b", base, "-F", "raw", top]
            guard try folder.run("qemu-img", arguments).status == 0 else { return }
            let asked = Locked<[String]>([])
            let node = BlockNode(name: "file", driver: try PlainFile(path: top))
            try expectRefused(format, "a backing file behind a shut gate") {
                _ = try format.open(["file": node]) { wish in asked.withLock { $0.append(wish) } }
            }
            guard asked.withLock({ $0 }) == ["backing \(base)"] else {
                throw failure(format, "asked for \(asked.withLock { $0 }) instead of its backing file")
            }
        }
    }
}

@AgentActor
private final class EmptyGraph: OpenContext {
    let nodeName = "node"
    let isReadOnly = true
    let autoReadOnly = false
    func child(_ name: String, _ reference: BlockdevRef, role: ChildRole) async throws -> BlockNode {
        throw ColdframeError(.notFound, "no child")
    }
    func bitmap(named name: String, node nodeName: String) throws -> DirtyBitmap {
        throw ColdframeError(.notFound, "no bitmap")
    }
    func backingNamedByImage(filename: String, format: String?, imageFilename: String) async throws -> BlockNode {
        throw ColdframeError(.permission, "no backing file")
    }
    func dataFileNamedByImage(filename: String, imageFilename: String) async throws -> BlockNode {
        throw ColdframeError(.permission, "no data file")
    }
    func snapshot(ofChild name: String, id: String?, tag: String?) async throws -> any SnapshotLease {
        throw ColdframeError(.notFound, "There are no snapshots here")
    }
    func corruptionReport() -> @Sendable (ImageCorruption) -> Void { { _ in } }
}
