import ColdframeKit
import ConformanceKit
import QAPI
import QMPWire
import Testing

/// One filter of the agent, opened over a disk of the test's. Nodes that it needs besides are disks of the same size.
struct FilterUnderTest: DriverUnderTest {
    let factory: any BlockDriverFactory
    private let nodeNames: [String]
    var name: String { factory.driverName }

    /// All filters of all modules that need nothing but nodes.
    static let all: [FilterUnderTest] = ModulesUnderTest.all.flatMap(\.blockDrivers).filter(\.isFilter).compactMap {
        guard let sample = SampleOptions(union: "BlockdevOptions", value: $0.driverName), sample.others.isEmpty,
            sample.nodes.contains("file")
        else {
            print("\($0.driverName): a filter that needs more than nodes has its tests in its own folder")
            return nil
        }
        return FilterUnderTest(factory: $0, nodeNames: sample.nodes)
    }

    var subject: DiskSubject {
        DiskSubject(
            name: name, files: nodeNames,
            create: { nodes, byteCount in
                for node in nodes.values { try (node.driver as? any Resizable)?.resize(toByteCount: byteCount) }
            },
            open: { nodes, isReadOnly in try open(nodes, isReadOnly: isReadOnly) })
    }

    private func open(_ nodes: [String: BlockNode], isReadOnly: Bool) throws -> any BlockDriver {
        var members: JSONObject = ["driver": .string(name), "discard": "unmap"]
        for node in nodeNames { members[node] = .string(node) }
        let options = try BlockdevOptions(QAPIInput(.object(members)))
        // Some ask for a format below that can compress.
        let disks = nodes.mapValues { BlockNode(name: $0.name, driver: CompressibleDriver($0.driver)) }
        return try waitFor { @AgentActor in
            try await factory.open(options, context: StandInGraph(disks, isReadOnly: isReadOnly))
        }
    }
}

/// What a filter of whatever kind must leave as it is: the disk that it shows.
@Suite struct FilterTests {
    private static let byteCount: UInt64 = 1 << 20

    @Test(arguments: FilterUnderTest.all) func theDiskBelowIsShown(filter: FilterUnderTest) async throws {
        try await onBlockingThread {
            let image = try SubjectImage(filter.subject, byteCount: Self.byteCount)
            let disk = ToolFolder.mixedDisk(byteCount: Int(Self.byteCount), seed: 1)
            try image.write(disk, to: "file")
            let node = BlockNode(name: "filter", driver: try image.open())
            guard node.byteCount == Self.byteCount, try node.driver.readBytes(0, disk.count) == disk else {
                throw failure(filter, "shows another disk than the one below")
            }
            try checkSize(filter, node)
            try checkExtents(filter, node)
            try node.driver.close()
        }
    }

    @Test(arguments: FilterUnderTest.all) func whatIsWrittenReachesTheDiskBelow(filter: FilterUnderTest) async throws {
        try await onBlockingThread {
            let campaign = PropertyCampaign(subject: filter.subject, byteCount: 1 << 18, defaultRuns: 3)
            try campaign.run { image, model in
                try image.contents()["file"] == model.disk ? nil : "the disk below is another"
            }
        }
    }

    @Test(arguments: FilterUnderTest.all) func aReadOnlyFilterWritesNothing(filter: FilterUnderTest) async throws {
        try await onBlockingThread {
            let image = try SubjectImage(filter.subject, byteCount: Self.byteCount)
            let before = try image.contents()
            let driver = try filter.subject.open(try image.nodes(isReadOnly: true), true)
            try checkReadOnly(filter, BlockNode(name: "filter", driver: driver))
            try driver.close()
            guard try image.contents() == before else { throw failure(filter, "wrote to a read-only disk") }
        }
    }

    @Test(arguments: FilterUnderTest.all) func aFailureBelowIsOneAbove(filter: FilterUnderTest) async throws {
        try await onBlockingThread {
            let campaign = FaultCampaign(
                subject: filter.subject, byteCount: 1 << 17, preparation: [.write(0..<50_000, seed: 1), .flush])
            for operation: DiskOperation in [.write(5_000..<100_000, seed: 3), .zero(0..<70_000, []), .flush] {
                guard try campaign.run(operation, failing: "file") > 0 else {
                    throw failure(filter, "does not pass \(operation) on")
                }
            }
        }
    }

    @Test(arguments: FilterUnderTest.all) func threadsDoNotDisturbOneAnother(filter: FilterUnderTest) async throws {
        try await onBlockingThread {
            let image = try SubjectImage(filter.subject, byteCount: 2 << 20, storage: .memory)
            let node = BlockNode(name: "filter", driver: try image.open())
            try checkThreads(filter, node)
            try node.driver.close()
        }
    }
}
