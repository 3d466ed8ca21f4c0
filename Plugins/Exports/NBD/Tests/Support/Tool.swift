import LinuxSystem

/// A program that somebody else wrote, run to its end.
enum Tool {
    struct Result: Sendable {
        var isSuccess: Bool
        var output: String
    }

    /// Standard output and error together. Nothing is read from standard input.
    static func run(_ name: String, _ arguments: [String], in directory: String) async throws -> Result {
        try await BlockingPool.shared.run { () throws(SystemError) in
            let path = "\(directory)/out-\(UUIDText.generate())"
            let output = try Descriptor.open(path, [.create, .readWrite])
            let nothing = try Descriptor.open("/dev/null", .readOnly)
            let pid = try ProcessControl.spawn(
                SpawnRequest(
                    path: name, arguments: arguments,
                    descriptors: [(nothing.raw, 0), (output.raw, 1), (output.raw, 2)], workingDirectory: directory))
            let status = try ProcessControl.wait(pid)
            let text = String(decoding: try Files.readAll(path), as: UTF8.self)
            return Result(isSuccess: status == .exited(0), output: text)
        }
    }
}
