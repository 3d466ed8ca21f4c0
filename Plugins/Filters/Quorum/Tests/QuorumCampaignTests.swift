import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import QMPWire
import Testing

@testable import QuorumFilter

/// What any driver that is written to must do, with three children of which two are enough.
@Suite struct QuorumCampaignTests {
    private static let files = ["n0", "n1", "n2"]

    /// What may be different in each campaign. One of them asks all children at once, whether that is worth it or not.
    struct Setting: Sendable {
        var options: JSONObject = [:]
        var worthNanoseconds = QuorumPace.worthNanoseconds
        static let all = [
            Setting(), Setting(options: ["read-pattern": "fifo"]), Setting(options: ["rewrite-corrupted": true]),
            Setting(worthNanoseconds: 0), Setting(options: ["rewrite-corrupted": true], worthNanoseconds: 0),
        ]
    }

    private static func subject(_ setting: Setting) -> DiskSubject {
        DiskSubject(
            name: "quorum", files: files,
            create: { nodes, byteCount in
                for node in nodes.values { try (node.driver as? any Resizable)?.resize(toByteCount: byteCount) }
            },
            open: { nodes, isReadOnly in
                var members = setting.options
                members["vote-threshold"] = 2
                members["children"] = .array(files.map { .string($0) })
                let settings = try QuorumSettings(try BlockdevOptionsQuorum(QAPIInput(.object(members))))
                let children = files.enumerated().compactMap { index, name in
                    nodes[name].map { QuorumChild(name: "children.\(index)", node: $0) }
                }
                return QuorumDriver(
                    children: children, settings: settings, isReadOnly: isReadOnly,
                    reports: QuorumReports(
                        nodeName: "q", post: { _, _ in },
                        log: LimitedLog(Logger(label: "q") { _ in SwiftLogNoOpLogHandler() })),
                    worthNanoseconds: setting.worthNanoseconds)
            })
    }

    private func onBlockingThread(_ body: @escaping @Sendable () throws -> Void) async throws {
        try await BlockingPool.shared.run { try body() }
    }

    @Test(arguments: Setting.all)
    func randomOperationsReachAllChildren(setting: Setting) async throws {
        try await onBlockingThread {
            try PropertyCampaign(subject: Self.subject(setting), byteCount: 1 << 18, defaultRuns: 2).run {
                image, model in
                try image.contents().values.allSatisfy { $0 == model.disk } ? nil : "the children differ"
            }
        }
    }

    /// The one that fails is outvoted, whichever call of it fails, and does not come back with what it has missed.
    @Test(arguments: files, Setting.all)
    func oneChildMayFail(file: String, setting: Setting) async throws {
        try await onBlockingThread {
            let campaign = FaultCampaign(
                subject: Self.subject(setting), byteCount: 1 << 17, preparation: [.write(0..<50_000, seed: 1), .flush])
            for operation: DiskOperation in [.write(5_000..<100_000, seed: 3), .zero(0..<70_000, []), .flush] {
                let callCount = try campaign.run(operation, failing: file)
                #expect(callCount > 0)
            }
        }
    }

    /// Writers and readers of the same sectors: nobody finds a difference, and the children are equal at the end.
    @Test(arguments: Setting.all.filter { $0.options["read-pattern"] == nil })
    func concurrentWritesAreNoDifferences(setting: Setting) async throws {
        let fixture = QuorumFixture("aaa", byteCount: 1 << 16)
        let quorum = try fixture.open(
            setting.options, threshold: 3, worthNanoseconds: setting.worthNanoseconds
        ) { index, file in
            HookedDriver(file) { _, range in
                if (range.lowerBound / 512 + UInt64(index)) % 3 == 0 { SystemThread.sleep(nanoseconds: 50_000) }
            }
        }
        try await onBlockingThread {
            let failures = Locked<[String]>([])
            let threads = try (0..<6).map { number in
                try SystemThread.start(name: "quorum") {
                    do {
                        for round in 0..<100 {
                            let offset = UInt64((round * 7 + number) % 8 * 512)
                            if number % 2 == 0 {
                                try quorum.writeBytes([UInt8](repeating: UInt8(round), count: 4096), at: offset)
                            } else {
                                _ = try quorum.readBytes(offset, 4096)
                            }
                        }
                    } catch { failures.withLock { $0.append("\(error)") } }
                }
            }
            for thread in threads { thread.join() }
            #expect(failures.withLock { $0 } == [])
        }
        #expect(fixture.told == [])
        #expect(Set(fixture.files.map(\.bytes)).count == 1)
    }
}
