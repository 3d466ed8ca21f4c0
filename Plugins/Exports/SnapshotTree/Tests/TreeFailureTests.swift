import ColdframeKit
import LinuxSystem
import Testing

@testable import SnapshotTreeExport

/// What goes wrong gives an error to who asked, and nothing else.
@Suite(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
struct TreeFailureTests {
    private func withTree(
        _ clusters: [PatternDisk.Cluster] = [.data, .data, .opaque, .data], failsBehind: UInt64 = .max,
        _ body: (MountedTree, PatternDisk) async throws -> Void
    ) async throws {
        var disk: PatternDisk?
        try await MountedTree.with(
            prepare: { services, directory in
                let made = try PatternDisk(path: directory + "/image", clusters: clusters, failsBehind: failsBehind)
                disk = made
                await services.put(disk: made, node: "disk0")
                await services.save("t1", nodes: ["disk0"])
            },
            { tree in try await body(tree, try #require(disk)) })
    }

    @Test func leasesAreSharedAndGivenBack() async throws {
        try await withTree { tree, _ in
            try await tree.shell(
                "for i in 1 2 3; do cat $M/t1/disk0/disk.raw; done > /dev/null; exec 3<$M/t1/disk0/disk.raw; exec 4<$M/t1/disk0/disk.raw; cat <&3 >/dev/null"
            )
            #expect(try await tree.leasesEnd())
            #expect(tree.services.leases.total <= 4)
        }
    }

    @Test func aFailingDriverIsAnIOError() async throws {
        try await withTree(failsBehind: 131072) { tree, _ in
            let result = try await tree.failing("LC_ALL=C cat $M/t1/disk0/disk.raw > /dev/null")
            #expect(result.code != 0 && result.output.contains("Input/output error"))
            try await tree.shell("cat $M/t1/info.json > /dev/null")
        }
    }

    @Test func aRefusedLeaseIsAnErrorOfOpen() async throws {
        try await withTree { tree, _ in
            await tree.services.fail(opens: ColdframeError(.busy, "It is being deleted"))
            let result = try await tree.failing("LC_ALL=C cat $M/t1/disk0/disk.raw")
            #expect(result.output.contains("Device or resource busy"))
            await tree.services.fail(opens: nil)
            try await tree.shell("cmp $M/t1/disk0/disk.raw $D/image.expected")
        }
    }

    @Test func anImageCutShortIsAnIOErrorAndNoCrash() async throws {
        try await withTree(Array(repeating: .data, count: 64)) { tree, disk in
            async let reader = tree.failing(
                """
                exec 3<$M/t1/disk0/disk.raw; head -c 4096 <&3 | cmp - <(head -c 4096 $D/image.expected) || exit 9
                touch $D/opened; while ! test -e $D/cut; do sleep 0.01; done
                LC_ALL=C tail -c 65536 <&3 > /dev/null
                """)
            for _ in 0..<500 where !Files.exists(tree.directory + "/opened") {
                try await Task.sleep(for: .milliseconds(10))
            }
            try disk.truncateHostFile()
            try await tree.shell("touch $D/cut")
            let result = try await reader
            #expect(result.output.contains("Input/output error"))
            try await tree.shell("cat $M/t1/info.json > /dev/null")
        }
    }

    @Test func stopUnderOpenFilesEndsThem() async throws {
        try await withTree { tree, _ in
            async let reader = tree.failing(
                "exec 3<$M/t1/disk0/disk.raw; touch $D/opened; while ! test -e $D/stopped; do sleep 0.01; done; LC_ALL=C cat <&3"
            )
            for _ in 0..<200 where !Files.exists(tree.directory + "/opened") {
                try await Task.sleep(for: .milliseconds(10))
            }
            await tree.export.stop()
            #expect(tree.services.leases.held == 0)
            try await tree.shell("touch $D/stopped")
            #expect(try await reader.code != 0)
        }
    }

    @Test func stopAnswersOpensThatWaitForTheAgent() async throws {
        try await withTree { tree, _ in
            await tree.services.delay(opens: .milliseconds(1500))
            async let reader = tree.failing("LC_ALL=C cat $M/t1/disk0/disk.raw")
            try await Task.sleep(for: .milliseconds(300))
            await tree.export.stop()
            #expect(try await reader.code != 0)
            // The lease that comes too late is given back.
            try await Task.sleep(for: .milliseconds(1500))
            #expect(tree.services.leases.held == 0)
        }
    }

    @Test func anotherHandLeavesTheExportStoppable() async throws {
        try await withTree { tree, _ in
            try await tree.shell("umount $M")
            await tree.export.stop()
        }
    }
}
