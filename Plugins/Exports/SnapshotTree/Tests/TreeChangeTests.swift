import ColdframeKit
import LinuxSystem
import Testing

@testable import SnapshotTreeExport

/// The tree follows the catalogue while it is looked at.
@Suite(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
struct TreeChangeTests {
    private func withTree(_ body: (MountedTree) async throws -> Void) async throws {
        try await MountedTree.with(
            prepare: { services, directory in
                let disk = try PatternDisk(path: directory + "/image", clusters: [.data, .zero, .opaque, .data])
                await services.put(disk: disk, node: "disk0")
                await services.save("t1", nodes: ["disk0"])
            }, body)
    }

    /// The kernel is told on a thread of its own, a moment after the catalogue has changed.
    private func eventually(_ tree: MountedTree, _ script: String, prints expected: String) async throws {
        var output = ""
        for _ in 0..<100 {
            output = try await tree.failing(script).output
            if output == expected { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("\(script) printed \(output)")
    }

    @Test func snapshotsAppear() async throws {
        try await withTree { tree in
            // Both the list and the absence of the name are now cached.
            #expect(try await tree.shell("ls $M; ! test -e $M/t2") == "t1")
            await tree.services.save("t2", nodes: ["disk0"], id: "2")
            try await eventually(tree, "ls $M", prints: "t1\nt2")
            try await tree.shell("cmp $M/t2/disk0/disk.raw $D/image.expected")
        }
    }

    @Test func snapshotsVanish() async throws {
        try await withTree { tree in
            try await tree.shell("cat $M/t1/disk0/disk.raw > /dev/null; ls -lR $M")
            #expect(try await tree.leasesEnd())
            await tree.services.delete("t1")
            try await eventually(tree, "ls $M; test -e $M/t1 && echo there", prints: "")
            #expect(try await tree.failing("cat $M/t1/info.json").code != 0)
        }
    }

    @Test func aTagThatComesAgainIsAnother() async throws {
        try await withTree { tree in
            let before = try await tree.shell("stat -c %i $M/t1/disk0/disk.raw")
            await tree.services.delete("t1")
            await tree.services.save("t1", nodes: ["disk0"], id: "2", date: 1_800_000_000)
            try await eventually(tree, "stat -c %Y $M/t1/disk0/disk.raw", prints: "1800000000")
            #expect(try await tree.shell("stat -c %i $M/t1/disk0/disk.raw") != before)
            try await tree.shell("ls $M/t1; cmp $M/t1/disk0/disk.raw $D/image.expected")
        }
    }

    @Test func numbersStayWhenOthersCome() async throws {
        try await withTree { tree in
            let before = try await tree.shell("cd $M; find . | sort | xargs stat -c '%n %i' | grep t1")
            await tree.services.save("a", nodes: ["disk0"], id: "2")
            try await eventually(tree, "ls $M", prints: "a\nt1")
            #expect(try await tree.shell("cd $M; find . | sort | xargs stat -c '%n %i' | grep t1") == before)
        }
    }

    @Test func aFileDeletedWhileOpenCanBeReadOn() async throws {
        try await withTree { tree in
            let services = tree.services
            async let reader = tree.failing(
                "exec 3<$M/t1/disk0/disk.raw; touch $D/opened; while ! test -e $D/deleted; do sleep 0.01; done; cmp - $D/image.expected <&3"
            )
            try await eventually(tree, "test -e $D/opened && echo yes", prints: "yes")
            #expect(services.leases.held == 1)
            await services.delete("t1")
            try await eventually(tree, "ls $M", prints: "")
            try await tree.shell("touch $D/deleted")
            #expect(try await reader.code == 0)
            #expect(try await tree.leasesEnd())
        }
    }

    @Test func theRootsDateMoves() async throws {
        try await withTree { tree in
            let before = try await tree.shell("stat -c %y $M")
            await tree.services.save("t2", nodes: ["disk0"], id: "2")
            try await eventually(tree, "ls $M", prints: "t1\nt2")
            #expect(try await tree.shell("stat -c %y $M") > before)
        }
    }

    @Test func oddTagsHaveNames() async throws {
        try await withTree { tree in
            let tags = ["..", ".", "", "a/b", "100%", "line\nbreak", "späß", String(repeating: "x", count: 300)]
            for (index, tag) in tags.enumerated() {
                await tree.services.save(tag, nodes: ["disk0"], id: "\(index + 2)")
            }
            try await eventually(tree, "ls $M | wc -l", prints: "\(tags.count + 1)")
            for name in ["%2E.", "%2E", "%", "a%2Fb", "100%25", "line%0Abreak", "späß"] {
                try await tree.shell("cmp '\(tree.mountpoint)/\(name)/disk0/disk.raw' $D/image.expected")
            }
        }
    }

    @Test func thousandsOfTagsAreListed() async throws {
        try await withTree { tree in
            await tree.services.change { sets in
                let one = sets[0]
                for number in 0..<3000 {
                    var set = one
                    set.tag = "n\(number)"
                    sets.append(set)
                }
            }
            try await eventually(tree, "ls $M | wc -l", prints: "3001")
            #expect(try await tree.shell("ls -l $M | wc -l") == "3002")
        }
    }
}
