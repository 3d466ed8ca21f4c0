import ColdframeKit
import LinuxSystem
import Testing

@testable import SnapshotTreeExport

private let mixed: [PatternDisk.Cluster] = (0..<80).map { [.data, .zero, .data, .opaque, .data][$0 % 5] }

/// Real mounts, looked at with the tools that people use.
@Suite(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
struct TreeMountTests {
    private func withTree(isDirect: Bool = false, _ body: (MountedTree) async throws -> Void) async throws {
        try await MountedTree.with(
            isDirect: isDirect,
            prepare: { services, directory in
                let disk = try PatternDisk(path: directory + "/image", clusters: mixed, tailByteCount: 1000)
                await services.put(disk: disk, state: PatternState(byteCount: 300_001), node: "disk0")
                await services.put(disk: disk, node: "disk1")
                await services.save("t1", nodes: ["disk0", "disk1"], uuid: "u1")
            }, body)
    }

    @Test func showsTagsNodesAndFiles() async throws {
        try await withTree { tree in
            let list = try await tree.shell("cd $M; find . | sort")
            #expect(
                list == """
                    .
                    ./t1
                    ./t1/disk0
                    ./t1/disk0/disk.raw
                    ./t1/disk1
                    ./t1/disk1/disk.raw
                    ./t1/info.json
                    ./t1/vmstate.bin
                    """)
        }
    }

    @Test func sizesAndDatesOpenNothing() async throws {
        try await withTree { tree in
            let size = mixed.count * 65536 - 1000
            let list = try await tree.shell("cd $M/t1; stat -c '%s %Y %A %U' disk0/disk.raw vmstate.bin .")
            #expect(
                list == """
                    \(size) 1700000000 -r--r--r-- root
                    300001 1700000000 -r--r--r-- root
                    0 1700000000 dr-xr-xr-x root
                    """)
            #expect(tree.services.leases.total == 0)
        }
    }

    @Test func informationIsJSON() async throws {
        try await withTree { tree in
            let text = try await tree.shell(
                """
                python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(d["tag"], d["uuid"], d["date"], \
                d["state"]["size"], [n["node-name"] for n in d["nodes"]], d["nodes"][1]["file"], \
                d["guest"]["vm-clock-nsec"])' $M/t1/info.json
                """)
            #expect(
                text == "t1 u1 2023-11-14T22:13:20Z 300001 ['disk0', 'disk1'] disk1/disk.raw 7")
        }
    }

    @Test(arguments: [
        "cmp $M/t1/disk0/disk.raw $D/image.expected",
        "cat $M/t1/disk0/disk.raw | cmp - $D/image.expected",
        "cp $M/t1/disk0/disk.raw $D/copy; cmp $D/copy $D/image.expected",
        "dd if=$M/t1/disk1/disk.raw of=$D/copy bs=1M iflag=direct status=none; cmp $D/copy $D/image.expected",
        "dd if=$M/t1/disk1/disk.raw of=$D/copy bs=777 status=none; cmp $D/copy $D/image.expected",
        "dd if=$M/t1/disk1/disk.raw of=$D/copy bs=3M status=none; cmp $D/copy $D/image.expected",
        "qemu-img compare -f raw -F raw $M/t1/disk1/disk.raw $D/image.expected",
        """
        python3 -c 'import mmap,sys; f=open(sys.argv[1],"rb"); m=mmap.mmap(f.fileno(),0,mmap.MAP_SHARED,mmap.PROT_READ); \
        f.close(); sys.exit(m[:]!=open(sys.argv[2],"rb").read())' $M/t1/disk0/disk.raw $D/image.expected
        """,
        """
        python3 -c 'import sys; d=open(sys.argv[1],"rb").read(); \
        sys.exit(d!=bytes(n*13%256 for n in range(300001)))' $M/t1/vmstate.bin
        """,
    ])
    func contentIsRight(script: String) async throws {
        try await withTree { tree in try await tree.shell(script) }
    }

    @Test(arguments: [
        "cmp $M/t1/disk0/disk.raw $D/image.expected",
        "dd if=$M/t1/disk0/disk.raw bs=5000 status=none | cmp - $D/image.expected",
    ])
    func contentIsRightWithoutCache(script: String) async throws {
        try await withTree(isDirect: true) { tree in try await tree.shell(script) }
    }

    @Test func holesAreFound() async throws {
        try await withTree { tree in
            let text = try await tree.shell(
                """
                python3 -c 'import os,sys; f=os.open(sys.argv[1],os.O_RDONLY); print(os.lseek(f,0,os.SEEK_HOLE), \
                os.lseek(f,65536,os.SEEK_DATA), os.lseek(f,131072,os.SEEK_HOLE))' $M/t1/disk0/disk.raw
                """)
            #expect(text == "65536 131072 393216")
        }
    }

    @Test func nothingCanBeWritten() async throws {
        try await withTree { tree in
            for script in ["touch $M/x", "rm $M/t1/info.json", "echo >> $M/t1/disk0/disk.raw", "mkdir $M/t1/d"] {
                let result = try await tree.failing("LC_ALL=C " + script)
                #expect(result.code != 0 && result.output.contains("Read-only file system"), "\(script)")
            }
        }
    }

    @Test func manyReadersAtOnce() async throws {
        try await withTree { tree in
            try await tree.shell(
                """
                for i in $(seq 16); do cmp $M/t1/disk$((i % 2))/disk.raw $D/image.expected & p="$p $!"; done
                for i in $p; do wait $i; done
                """)
            #expect(try await tree.leasesEnd())
        }
    }

    @Test func statfsAndAttributesAnswer() async throws {
        try await withTree { tree in
            let text = try await tree.shell("findmnt -n -o SOURCE,FSTYPE,OPTIONS $M; df -B1 --output=used $M | tail -1")
            #expect(text.contains("coldframe:t") && text.contains("fuse.coldframe"))
            #expect(text.contains("ro,nosuid,nodev") && text.contains("default_permissions"))
            let names = try await tree.shell(
                "python3 -c 'import os,sys; print(os.listxattr(sys.argv[1]))' $M/t1/info.json 2>&1 || true")
            #expect(names == "[]" || names.contains("not supported"))
        }
    }
}
