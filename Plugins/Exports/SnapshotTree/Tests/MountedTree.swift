import ColdframeKit
import LinuxSystem
import Testing

@testable import SnapshotTreeExport

/// Why real mounts cannot be tested here, or nil.
let mountObstacle: String? = {
    if ProcessControl.effectiveUserID != 0 { return "mounting needs root" }
    guard (try? Descriptor.open("/dev/fuse", .readWrite)) != nil else { return "/dev/fuse cannot be opened" }
    return nil
}()

/// A tree mounted for one test.
struct MountedTree: Sendable {
    let directory: String
    let mountpoint: String
    let services: FakeServices
    let export: TreeExport

    /// Mounts, runs `body` and leaves nothing behind.
    static func with(
        isDirect: Bool = false, prepare: (FakeServices, _ directory: String) async throws -> Void,
        _ body: (MountedTree) async throws -> Void
    ) async throws {
        let directory = try Files.temporaryDirectory(prefix: "cf-tree")
        let mountpoint = directory + "/mnt"
        try Files.mkdir(mountpoint)
        let services = FakeServices()
        try await prepare(services, directory)
        let export = try await TreeExport.start(
            TreeExport.Options(id: "t", mountpoint: mountpoint, isDirect: isDirect), services: services)
        let tree = MountedTree(directory: directory, mountpoint: mountpoint, services: services, export: export)
        let result: Result<Void, any Error>
        do { result = .success(try await body(tree)) } catch { result = .failure(error) }
        await export.stop()
        #expect(!MountTable.read().contains { $0.mountpoint == mountpoint })
        try Files.removeTree(directory)
        try result.get()
    }

    /// Runs a script with `$M` the mountpoint and `$D` the directory beside it; its output, or an issue if it fails.
    @discardableResult
    func shell(_ script: String, sourceLocation: SourceLocation = #_sourceLocation) async throws -> String {
        let result = try await Shell.run("M='\(mountpoint)'; D='\(directory)'; set -e -o pipefail; \(script)")
        #expect(result.code == 0, "\(script): \(result.output)", sourceLocation: sourceLocation)
        return result.output
    }

    /// The same for what must fail; its exit code and output.
    func failing(_ script: String) async throws -> (code: Int32, output: String) {
        try await Shell.run("M='\(mountpoint)'; D='\(directory)'; \(script)")
    }

    /// Waits until no lease is held; the kernel releases files a moment after close(2).
    func leasesEnd() async throws -> Bool {
        for _ in 0..<200 {
            if services.leases.held == 0 { return true }
            try await Task.sleep(for: .milliseconds(10))
        }
        return false
    }
}

enum Shell {
    /// Runs bash, on a thread that may block.
    static func run(_ script: String) async throws -> (code: Int32, output: String) {
        try await BlockingPool.shared.run { () throws -> (Int32, String) in
            let output = try Descriptor.memoryFile(name: "output")
            let pid = try ProcessControl.spawn(
                SpawnRequest(
                    path: "bash", arguments: ["-c", script], descriptors: [(output.raw, 1), (output.raw, 2)]))
            let status = try ProcessControl.wait(pid)
            var bytes = [UInt8](repeating: 0, count: Int(try output.status().byteCount))
            _ = try bytes.withUnsafeMutableBytes { try output.pread(into: $0, at: 0) }
            while bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
            let code: Int32 = if case .exited(let code) = status { code } else { -1 }
            return (code, String(decoding: bytes, as: UTF8.self))
        }
    }
}
