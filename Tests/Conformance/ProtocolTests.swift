import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

/// One protocol of the agent: a driver with no node below it. Where it takes a file name, that of a file of the test's;
/// where it takes a size, the test's size.
struct ProtocolUnderTest: DriverUnderTest {
    let factory: any BlockDriverFactory
    private let members: [String]
    var name: String { factory.driverName }
    var hasFile: Bool { members.contains("filename") }

    /// All protocols of all modules that need no more than this.
    static let all: [ProtocolUnderTest] = ModulesUnderTest.all.flatMap(\.blockDrivers).compactMap {
        guard !$0.isFormat, !$0.isFilter, let sample = SampleOptions(union: "BlockdevOptions", value: $0.driverName),
            sample.nodes.isEmpty
        else { return nil }
        let members = sample.others.map(\.name)
        // With neither a file nor a size to be told there is nothing that a test could expect.
        guard !members.isEmpty, members.allSatisfy({ ["filename", "size"].contains($0) }) else {
            print("\($0.driverName): a protocol that needs \(members) has its tests in its own folder")
            return nil
        }
        return ProtocolUnderTest(factory: $0, members: members)
    }

    func open(_ folder: ToolFolder, byteCount: UInt64, isReadOnly: Bool = false) throws -> any BlockDriver {
        try open(folder.path("disk"), byteCount: byteCount, isReadOnly: isReadOnly)
    }

    func open(_ path: String, byteCount: UInt64, isReadOnly: Bool) throws -> any BlockDriver {
        var options: JSONObject = ["driver": .string(name), "discard": "unmap"]
        if members.contains("filename") { options["filename"] = .string(path) }
        if members.contains("size") { options["size"] = JSONValue(byteCount) }
        return try waitFor { @AgentActor [options] in
            try await factory.open(
                BlockdevOptions(QAPIInput(.object(options))), context: StandInGraph([:], isReadOnly: isReadOnly))
        }
    }
}

/// Sizes, content, failures and refusals, of every protocol that the agent has.
@Suite struct ProtocolTests {
    private static let byteCount = (1 << 20) + 512

    /// Runs `body` with a folder in which the disk lies, for protocols that have one there.
    private func withFolder(
        _ tested: ProtocolUnderTest, _ body: @escaping @Sendable (_ folder: ToolFolder, _ disk: [UInt8]) throws -> Void
    ) async throws {
        try await onBlockingThread {
            let folder = try ToolFolder()
            var disk = ToolFolder.mixedDisk(byteCount: Self.byteCount, seed: 2)
            if tested.hasFile {
                try folder.write(disk, to: "disk")
            } else {
                let driver = try tested.open(folder, byteCount: UInt64(disk.count))
                disk = try driver.readBytes(0, disk.count)
                try driver.close()
            }
            try body(folder, disk)
        }
    }

    @Test(arguments: ProtocolUnderTest.all) func theDiskIsReadToItsEnd(tested: ProtocolUnderTest) async throws {
        try await withFolder(tested) { folder, disk in
            let node = BlockNode(
                name: "disk", driver: try tested.open(folder, byteCount: UInt64(disk.count), isReadOnly: true))
            guard node.byteCount == UInt64(disk.count), try node.driver.readBytes(0, disk.count) == disk else {
                throw failure(tested, "shows another disk")
            }
            try checkSize(tested, node)
            try checkExtents(tested, node)
            try checkReadOnly(tested, node)
            try node.driver.close()
            if tested.hasFile, try Files.readAll(folder.path("disk"), limit: 1 << 30) != disk {
                throw failure(tested, "wrote to a read-only disk")
            }
        }
    }

    @Test(arguments: ProtocolUnderTest.all) func randomOperationsAgreeWithAModel(tested: ProtocolUnderTest) async throws
    {
        try await withFolder(tested) { folder, disk in
            var driver = try tested.open(folder, byteCount: UInt64(disk.count))
            defer { try? driver.close() }
            guard !driver.isReadOnly else { return }
            let seed = SystemClock.monotonicNanoseconds()
            print("\(tested.name): random operations from seed \(seed)")
            var generator = SeededGenerator(seed: seed)
            var model = DiskModel(byteCount: 0)
            model.disk = disk
            for _ in 0..<100 {
                let operation = DiskOperation.random(byteCount: model.disk.count, maximum: 300_000, &generator)
                let size = UInt64(model.disk.count)
                try model.apply(operation, to: &driver) { old in
                    try old.close()
                    return try tested.open(folder, byteCount: size)
                }
                if let difference = try model.difference(from: driver) {
                    throw failure(tested, "after \(operation) of seed \(seed): \(difference)")
                }
            }
        }
    }

    @Test(arguments: ProtocolUnderTest.all) func threadsDoNotDisturbOneAnother(tested: ProtocolUnderTest) async throws {
        try await withFolder(tested) { folder, disk in
            let node = BlockNode(name: "disk", driver: try tested.open(folder, byteCount: UInt64(disk.count)))
            if !node.isReadOnly { try checkThreads(tested, node) }
            try node.driver.close()
        }
    }

    /// Each system call that a write makes fails once.
    @Test(arguments: ProtocolUnderTest.all) func aFailedCallIsAnErrorAndNoDamage(tested: ProtocolUnderTest) async throws
    {
        try await withFolder(tested) { folder, disk in
            let driver = try tested.open(folder, byteCount: UInt64(disk.count))
            defer { try? driver.close() }
            guard !driver.isReadOnly else { return }
            let bytes = SeededGenerator.bytes(100_000, seed: 5)
            for call in 1...20 {
                SystemCallFaults.inject(onCall: call, errno: Errno.noSpace)
                defer { SystemCallFaults.clear() }
                let result = Result { try driver.writeBytes(bytes, at: 30_000) }
                let wasReached = SystemCallFaults.callCount >= call
                SystemCallFaults.clear()
                if wasReached, case .success = result { throw failure(tested, "keeps a failed call to itself") }
                if case .failure(let error) = result, (error as? ColdframeError)?.errno != Errno.noSpace {
                    throw failure(tested, "does not say that there is no space, but \(error)")
                }
                try driver.writeBytes(bytes, at: 30_000)
                guard try driver.readBytes(30_000, bytes.count) == bytes else { throw failure(tested, "lost a write") }
                if !wasReached { return }
            }
        }
    }

    @Test(arguments: ProtocolUnderTest.all) func optionsOfAnotherDriverAreRefused(
        tested: ProtocolUnderTest
    ) async throws {
        try await onBlockingThread {
            try expectRefused(tested, "options of another driver") {
                _ = try waitFor { @AgentActor in
                    try await tested.factory.open(
                        BlockdevOptions(driver: tested.name, branch: QAPIEmpty()), context: StandInGraph([:]))
                }
            }
        }
    }

    @Test(arguments: ProtocolUnderTest.all) func aFileThatIsNotThereIsNamed(tested: ProtocolUnderTest) async throws {
        try await onBlockingThread {
            guard tested.hasFile else { return }
            do {
                _ = try tested.open("/nonexistent/disk", byteCount: 512, isReadOnly: true)
            } catch let error as ColdframeError {
                guard error.message.contains("/nonexistent/disk") else {
                    throw failure(tested, "does not name the file that is not there: \(error)")
                }
                return
            }
            throw failure(tested, "opens a file that is not there")
        }
    }
}
