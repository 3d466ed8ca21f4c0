import CLinux
import Glibc

/// A program to be started.
public struct SpawnRequest: Sendable {
    /// A path, or a name that is looked for in `PATH`.
    public var path: String
    /// Without the program's name, which is `path`.
    public var arguments: [String]
    /// `NAME=value` each; nil passes this process's own on.
    public var environment: [String]?
    /// What the program gets: `source` of this process under the number `target`. Others above 2 are closed; 0, 1 and 2
    /// are passed on unless they are targets.
    public var descriptors: [(source: Int32, target: Int32)]
    public var workingDirectory: String?
    /// `setsid(2)` in the new process.
    public var newSession: Bool

    public init(
        path: String, arguments: [String] = [], environment: [String]? = nil,
        descriptors: [(source: Int32, target: Int32)] = [], workingDirectory: String? = nil, newSession: Bool = false
    ) {
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self.descriptors = descriptors
        self.workingDirectory = workingDirectory
        self.newSession = newSession
    }
}

extension ProcessControl {
    /// `posix_spawn(3)`: returns the pid of the new process. It starts with no signal blocked or ignored. A program
    /// that cannot be executed is an error here.
    public static func spawn(_ request: SpawnRequest) throws(SystemError) -> Int32 {
        let texts = [request.path] + request.arguments + (request.environment ?? []) + [request.workingDirectory ?? ""]
        if texts.contains(where: { $0.utf8.contains(0) }) || request.descriptors.contains(where: { $0.target < 0 }) {
            throw SystemError(errno: EINVAL, operation: "posix_spawn", subject: request.path)
        }
        // Copies above every target, so that no target overwrites a source that is still needed.
        let floor = max(2, request.descriptors.map(\.target).max() ?? 2) + 1
        var sources: [Descriptor] = []
        for descriptor in request.descriptors {
            sources.append(
                Descriptor(owning: try SystemCall.run("dup") { cf_duplicate(descriptor.source, floor) }))
        }
        let arguments = CStringArray([request.path] + request.arguments)
        let environment = request.environment.map { CStringArray($0) }
        var pid: pid_t = 0
        try SystemCall.check("posix_spawn", request.path) {
            cf_spawn(
                &pid, request.path, arguments.pointer, environment?.pointer, sources.map(\.raw),
                request.descriptors.map(\.target), sources.count, request.workingDirectory, request.newSession)
        }
        // The copies must outlive the call.
        withExtendedLifetime((sources, arguments, environment)) {}
        return pid
    }
}

/// A NULL-terminated array of C strings, as long as the object lives.
private final class CStringArray {
    let pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    init(_ texts: [String]) {
        count = texts.count
        pointer = .allocate(capacity: texts.count + 1)
        for (index, text) in texts.enumerated() { (pointer + index).initialize(to: strdup(text)) }
        (pointer + texts.count).initialize(to: nil)
    }

    deinit {
        for index in 0..<count { free(pointer[index]) }
        pointer.deallocate()
    }
}
