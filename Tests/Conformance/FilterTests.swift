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
        guard let sample = SampleOptions(union: "BlockdevOptions", value: $0.driverName), sample.others.isEmpty else {
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
            open: { nodes, isReadOnly in try open(nodes, isReadOnly: isReadOnly).driver })
    }

    /// Which of the nodes hold the disk that the filter shows: one, or several that are the same.
    func shownNames() throws -> [String] {
        let (driver, names) = try open(
            SubjectImage(subject, byteCount: 1 << 20, storage: .memory).nodes(), isReadOnly: false)
        try driver.close()
        return names
    }

    private func open(
        _ nodes: [String: BlockNode], isReadOnly: Bool
    ) throws -> (driver: any BlockDriver, shownNames: [String]) {
        var members: JSONObject = ["driver": .string(name), "discard": "unmap"]
        for node in nodeNames { members[node] = .string(node) }
        let options = try BlockdevOptions(QAPIInput(.object(members)))
        // Some ask for a format below that can compress.
        let disks = nodes.mapValues { BlockNode(name: $0.name, driver: CompressibleDriver($0.driver)) }
        return try waitFor { @AgentActor in
            let graph = StandInGraph(disks, isReadOnly: isReadOnly)
            return (try await factory.open(options, context: graph), graph.shownNames)
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
            for name in try filter.shownNames() { try image.write(disk, to: name) }
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
            let names = try filter.shownNames()
            let campaign = PropertyCampaign(subject: filter.subject, byteCount: 1 << 18, defaultRuns: 3)
            try campaign.run { image, model in
                let contents = try image.contents()
                return names.allSatisfy { contents[$0] == model.disk } ? nil : "the disk below is another"
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
            let names = try filter.shownNames()
            // What one of several disks has missed is another failure afterwards: those filters have tests of their own.
            guard names.count == 1 else { return }
            let campaign = FaultCampaign(
                subject: filter.subject, byteCount: 1 << 17, preparation: [.write(0..<50_000, seed: 1), .flush])
            for operation: DiskOperation in [.write(5_000..<100_000, seed: 3), .zero(0..<70_000, []), .flush] {
                guard try campaign.run(operation, failing: names[0]) > 0 else {
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
