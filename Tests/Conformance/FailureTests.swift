import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import Testing

@testable import AgentCore

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
            let whole = try prepared(format)
            let seed = SystemClock.monotonicNanoseconds()
            print("\(format.name): random damage from seed \(seed)")
            var generator = SeededGenerator(seed: seed)
            let before = try residentByteCount()
            for _ in 0..<200 {
                let file = format.files.randomElement(using: &generator) ?? "file"
                var bytes = whole[file] ?? []
                guard !bytes.isEmpty else { continue }
                for _ in 0..<Int.random(in: 1...4, using: &generator) {
                    // Metadata stand at the beginning more often than not.
                    let limit = Bool.random(using: &generator) ? min(bytes.count, 512) : bytes.count
                    bytes[Int.random(in: 0..<limit, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
                }
                try open(format, whole, file, bytes)
            }
            let grown = try residentByteCount() - before
            guard grown < 256 << 20 else { throw failure(format, "took \(grown) bytes for damaged images") }
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
            for disk in [driver] + openSnapshots(driver) {
                // A hostile size may be anything.
                let count = min(disk.byteCount, 1 << 18)
                _ = try disk.readBytes(0, Int(count))
                _ = try disk.extents(at: 0, byteCount: count, limit: 64)
            }
            try driver.close()
        } catch is ColdframeError {}
    }

    private func openSnapshots(_ driver: any BlockDriver) -> [any BlockDriver] {
        guard let bearer = driver as? any SnapshotBearing else { return [] }
        return bearer.snapshots.prefix(8).compactMap { try? bearer.openSnapshot(id: $0.id) }
    }

    private func residentByteCount() throws -> Int {
        let words = String(decoding: try Files.readAll("/proc/self/statm"), as: UTF8.self).split(separator: " ")
        return (Int(words[1]) ?? 0) * 4096
    }
}

/// What a format cannot do it says so, and what an image asks for it does not get by itself.
@Suite struct RefusalTests {
    @Test(arguments: FormatUnderTest.all) func aMissingCapabilityIsNamed(format: FormatUnderTest) async throws {
        try await onBlockingThread {
            let image = try SubjectImage(format.subject, byteCount: 1 << 17, storage: .memory)
            let driver = try image.open()
            defer { try? driver.close() }
            guard !(driver is any SnapshotBearing), !driver.isReadOnly else { return }
            let outcome = Outcome<String>()
            Task { @AgentActor in
                let node = GraphNode(
                    body: NodeBody(name: "disk", driver: driver), options: nil, isMonitorOwned: false,
                    isPrivate: false)
                do {
                    _ = try node.snapshotBearer()
                    outcome.set(.success(""))
                } catch { outcome.set(.success("\(error)")) }
            }
            let text = try outcome.wait().get()
            guard text.contains(format.name), text.contains("does not support internal snapshots") else {
                throw failure(format, "refuses a snapshot with '\(text)'")
            }
        }
    }

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
            let directory = try Files.temporaryDirectory(prefix: "conformance")
            defer { try? Files.removeTree(directory) }
            func qemuImg(_ arguments: [String]) throws -> Bool {
                let null = try Descriptor.open("/dev/null", .readWrite)
                let process = try ProcessControl.spawn(
                    SpawnRequest(
                        path: "qemu-img", arguments: arguments, descriptors: [(null.raw, 1), (null.raw, 2)]))
                if case .exited(0) = try ProcessControl.wait(process) { return true }
                return false
            }
            let (base, top) = ("\(directory)/base", "\(directory)/top")
            guard try qemuImg(["create", "-q", "-f", "raw", base, "1M"]),
                try qemuImg(["create", "-q", "-f", format.name, "-b", base, "-F", "raw", top])
            else { return }
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
