import ColdframeKit
import LinuxSystem
import Testing

@testable import SnapshotTreeExport

struct MountpointTests {
    private func withDirectory(_ body: (String) async throws -> Void) async throws {
        let directory = try Files.temporaryDirectory(prefix: "cf-mountpoint")
        let result: Result<Void, any Error>
        do { result = .success(try await body(directory)) } catch { result = .failure(error) }
        try Files.removeTree(directory)
        try result.get()
    }

    private func message(_ path: String) -> String {
        do {
            _ = try Mountpoint.check(path)
            return "no error"
        } catch {
            return error.message
        }
    }

    @Test func missingDirectoryIsNamed() async throws {
        try await withDirectory { directory in
            #expect(
                message(directory + "/none")
                    == "Mountpoint '\(directory)/none' does not exist: make the directory first")
        }
    }

    @Test func aFileIsNoMountpoint() async throws {
        try await withDirectory { directory in
            try Files.replaceAtomically(directory + "/file", contents: [1])
            #expect(message(directory + "/file") == "Mountpoint '\(directory)/file' is not a directory")
        }
    }

    @Test func aMountIsBusy() {
        #expect(message("/proc").hasPrefix("Mountpoint '/proc' is busy: '"))
    }

    @Test func aDirectoryIsFine() async throws {
        try await withDirectory { directory in
            #expect(message(directory) == "no error")
        }
    }

    @Test func cleaningAPathThatIsNotThereDoesNothing() throws {
        try Mountpoint.cleanStale("/nonexistent/place")
    }

    /// A mount of our type whose device is closed, as kill -9 leaves it.
    private static let deadMount = """
        import ctypes, os, sys
        fd = os.open('/dev/fuse', os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        r = libc.mount(b'coldframe:dead', sys.argv[1].encode(), sys.argv[2].encode(), 1,
                       ('fd=%d,rootmode=40000,user_id=0,group_id=0' % fd).encode())
        sys.exit(r != 0)
        """

    @Test(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
    func aDeadTreeIsCleaned() async throws {
        try await withDirectory { directory in
            let place = directory + "/a b"
            try Files.mkdir(place)
            #expect(try await Shell.run("python3 -c \"\(Self.deadMount)\" '\(place)' fuse.coldframe").code == 0)
            #expect(try await Shell.run("ls '\(place)'").code != 0)
            #expect(message(place).contains("server is gone"))
            try Mountpoint.cleanStale(place + "/")
            #expect(message(place) == "no error")
        }
    }

    @Test(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
    func aDeadMountOfOthersIsLeft() async throws {
        try await withDirectory { directory in
            let place = directory + "/m"
            try Files.mkdir(place)
            #expect(try await Shell.run("python3 -c \"\(Self.deadMount)\" '\(place)' fuse.other").code == 0)
            try Mountpoint.cleanStale(place)
            #expect(MountTable.read().contains { $0.mountpoint == place })
            #expect(try await Shell.run("umount '\(place)'").code == 0)
        }
    }

    @Test(.enabled(if: mountObstacle == nil, "real mounts: \(mountObstacle ?? "")"))
    func aLivingTreeIsLeftAndBusy() async throws {
        try await MountedTree.with(prepare: { _, _ in }) { tree in
            try Mountpoint.cleanStale(tree.mountpoint)
            #expect(MountTable.read().contains { $0.mountpoint == tree.mountpoint })
            await #expect(throws: ColdframeError.self) {
                _ = try await TreeExport.start(
                    TreeExport.Options(id: "second", mountpoint: tree.mountpoint), services: tree.services)
            }
        }
    }

    @Test func theMountTableIsRead() {
        let text = """
            22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
            90 22 0:48 / /mnt/a\\040b ro,nosuid - fuse.coldframe coldframe:x ro,user_id=0
            broken line
            """
        let entries = MountTable.parse(text)
        #expect(entries.count == 2)
        #expect(entries.last?.mountpoint == "/mnt/a b")
        #expect(entries.last?.isSnapshotTree == true)
        #expect(entries.first?.id == 22)
    }
}
