import ColdframeKit
import KeeperWire
import LinuxSystem

/// How an agent comes to a keeper: by starting one, or by finding that of an earlier agent.
extension KeeperLink {
    /// Starts a keeper that listens at `socketPath` and connects to it. `onExit` is called on the reader thread when the
    /// guest has ended.
    static func start(
        socketPath: String, errorLogPath: String, onExit: @escaping ExitHandler
    ) async throws(ColdframeError) -> KeeperLink {
        try await BlockingPool.shared.run { () throws(ColdframeError) in
            let program = try keeperPath()
            // A scope of its own under systemd, so that the guest is no part of the agent's service.
            let scope = SystemdScope.prefix(description: "Guest of a Coldframe agent")
            do {
                let input = try Descriptor.open("/dev/null", .readWrite)
                let log = try Descriptor.open(errorLogPath, [.writeOnly, .create, .truncate])
                func run(_ words: [String]) throws -> Bool {
                    let pid = try ProcessControl.spawn(
                        SpawnRequest(
                            path: words[0], arguments: Array(words.dropFirst()),
                            descriptors: [(input.raw, 0), (input.raw, 1), (log.raw, 2)], workingDirectory: "/"))
                    // The keeper itself is a grandchild; this returns as soon as it listens.
                    return try ProcessControl.wait(pid) == .exited(0)
                }
                // Without a scope it stays in the service, which the unit's KillMode leaves alone too.
                let isInScope = scope.isEmpty ? false : (try? run(scope + [program, socketPath])) ?? false
                guard try isInScope || run([program, socketPath]) else {
                    let words = (try? Files.readAll(errorLogPath, limit: 4096)) ?? []
                    throw ColdframeError(
                        .peer, "The guest's keeper did not start: \(String(decoding: words, as: UTF8.self))")
                }
                return try KeeperLink(socket: try UnixSocket.connect(path: socketPath), onExit: onExit)
            } catch let error as ColdframeError {
                throw error
            } catch {
                throw ColdframeError(wrapping: error).prefixed("Could not start the guest's keeper '\(program)'")
            }
        }
    }

    /// The keeper of an earlier agent, if it has a guest that lives. One without is waited for until it is gone, which it
    /// soon is.
    static func survivor(
        socketPath: String, onExit: @escaping ExitHandler
    ) async throws(ColdframeError) -> (link: KeeperLink, status: KeeperStatus)? {
        let deadline = SystemClock.monotonicNanoseconds() + 3_000_000_000
        while Files.exists(socketPath) {
            do {
                let socket = try await BlockingPool.shared.run { () throws(SystemError) in
                    try UnixSocket.connect(path: socketPath)
                }
                let link = try KeeperLink(socket: socket, onExit: onExit)
                do throws(ColdframeError) {
                    let status = try await link.status()
                    if status.isGuestAlive { return (link, status) }
                    link.close()
                } catch {
                    link.close()
                    throw error
                }
            } catch let error as SystemError {
                // Nobody listens: the file is what a killed keeper left, and the next one replaces it.
                if error.errno == Errno.connectionRefused || error.errno == Errno.noEntry { return nil }
                throw ColdframeError(error, "Could not ask the keeper of an earlier guest")
            } catch let error as ColdframeError {
                // One that ends while it is asked is as good as gone.
                if error.code != .peer { throw error }
            } catch {
                throw ColdframeError(wrapping: error)
            }
            guard SystemClock.monotonicNanoseconds() < deadline else {
                throw ColdframeError(.timedOut, "The keeper of an earlier guest does not end: see '\(socketPath)'")
            }
            try? await Task.sleep(nanoseconds: 20_000_000)
        }
        return nil
    }

    /// Beside the agent's own executable, unless `COLDFRAME_KEEPER` says otherwise.
    private static func keeperPath() throws(ColdframeError) -> String {
        if let path = ProcessControl.environment("COLDFRAME_KEEPER") { return path }
        do {
            let own = try Files.canonicalPath("/proc/self/exe")
            let path = Files.parentDirectory(of: own) + "/coldframe-keeper"
            guard Files.exists(path) else {
                throw ColdframeError(
                    .notFound, "'\(path)' is missing: the agent's executables belong into one folder")
            }
            return path
        } catch {
            throw ColdframeError(wrapping: error)
        }
    }
}
