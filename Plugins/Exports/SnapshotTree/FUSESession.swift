import CFuse3
import ColdframeKit
import Glibc
import LinuxSystem
import Synchronization

/// One mount: libfuse's session, its workers, and the thread that tells the kernel of changes.
///
/// `start` and `stop` block (they mount, fork and join): on a thread of `BlockingPool`, never on the actor.
final class FUSESession: Sendable {
    struct Options: Sendable {
        /// Canonical path of an existing directory.
        var mountpoint: String
        /// What `df` and mount tables show as the source.
        var sourceName: String
        var allowOther: Bool
    }

    private static let workerCount = 4

    let mountpoint: String
    private let server: TreeServer
    // Made in `start`, destroyed in `stop` after the last thread that uses it; libfuse locks it inside.
    nonisolated(unsafe) private let session: OpaquePointer
    private let notifier: KernelNotifier
    private let workers = Locked<[SystemThread.Handle]>([])
    private let runningCount = Atomic<Int>(0)
    private let workersEnded = ConditionVariable()
    private let isStopping = Atomic<Bool>(false)
    /// The mount in the mount table, so that nobody else's at the same place is ever taken down; nil without /proc.
    private let mount: MountTable.Entry?

    private init(_ options: Options, server: TreeServer, session: OpaquePointer, mount: MountTable.Entry?) {
        mountpoint = options.mountpoint
        self.server = server
        self.session = session
        self.mount = mount
        notifier = KernelNotifier(session: session)
    }

    /// Mounts and serves. On a throw nothing is mounted.
    static func start(_ options: Options, server: TreeServer) throws(ColdframeError) -> FUSESession {
        let session = try makeSession(options, server: server)
        _ = FUSELog.takeLastMessage()
        guard fuse_session_mount(session, options.mountpoint) == 0 else {
            let reason = FUSELog.takeLastMessage() ?? "libfuse gave no reason"
            fuse_session_destroy(session)
            throw ColdframeError(
                .io,
                "Cannot mount the snapshot tree at '\(options.mountpoint)': \(reason). FUSE needs /dev/fuse, and "
                    + "without root fusermount3 (package fuse3)")
        }
        let mount = MountTable.read().last { $0.mountpoint == options.mountpoint }
        if let mount { raiseReadAhead(device: mount.device) }
        let mounted = FUSESession(options, server: server, session: session, mount: mount)
        do {
            try mounted.startThreads()
        } catch {
            mounted.stop()
            throw ColdframeError(error, "Cannot start the workers of the snapshot tree")
        }
        return mounted
    }

    /// FUSE may only lower the kernel's read-ahead of 128 KiB; with that of one full request sequential reads are about
    /// twice as fast. It is a tuning: without root it stays as it is.
    private static func raiseReadAhead(device: String) {
        guard let file = try? Descriptor.open("/sys/class/bdi/\(device)/read_ahead_kb", .writeOnly) else { return }
        try? file.writeAll(Array("\(Scratch.readByteCount / 1024)".utf8))
    }

    private static func makeSession(_ options: Options, server: TreeServer) throws(ColdframeError) -> OpaquePointer {
        var mountOptions = [
            "ro", "nosuid", "nodev", "default_permissions", "subtype=coldframe",
            "fsname=\(escaped(options.sourceName))",
        ]
        if options.allowOther { mountOptions.append("allow_other") }
        let words = ["coldframed", "-o", mountOptions.joined(separator: ",")]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { word in strdup(word) }
        defer { for argument in arguments { free(argument) } }
        var operations = makeFUSEOperations()
        let session = arguments.withUnsafeMutableBufferPointer { arguments in
            var list = fuse_args(argc: Int32(arguments.count), argv: arguments.baseAddress, allocated: 0)
            // libfuse copies what it keeps of the arguments and the table. The server outlives the session: it is a
            // member of the object that destroys it.
            defer { fuse_opt_free_args(&list) }
            return fuse_session_new(
                &list, &operations, MemoryLayout<fuse_lowlevel_ops>.size, Unmanaged.passUnretained(server).toOpaque())
        }
        guard let session else {
            throw ColdframeError(.io, "Cannot make a FUSE session: \(FUSELog.takeLastMessage() ?? "no reason given")")
        }
        return session
    }

    /// In libfuse's option text a comma ends an option and a backslash escapes.
    private static func escaped(_ text: String) -> String {
        String(text.flatMap { $0 == "," || $0 == "\\" ? ["\\", $0] : [$0] })
    }

    private func startThreads() throws(SystemError) {
        try notifier.start()
        for number in 0..<Self.workerCount {
            runningCount.add(1, ordering: .acquiringAndReleasing)
            do {
                let handle = try SystemThread.start(name: "cf-tree-\(number)") { self.work() }
                workers.withLock { $0.append(handle) }
            } catch {
                runningCount.subtract(1, ordering: .acquiringAndReleasing)
                throw error
            }
        }
    }

    /// Publishes a tree and has the kernel told. Any thread; does not wait.
    func publish(_ tree: Tree, _ change: TreeChange) {
        server.publish(tree)
        notifier.send(change)
    }

    private func work() {
        var buffer = fuse_buf()
        while fuse_session_exited(session) == 0 {
            let result = fuse_session_receive_buf(session, &buffer)
            if result == -Errno.interrupted || result == -Errno.tryAgain { continue }
            if result <= 0 { break }
            fuse_session_process_buf(session, &buffer)
        }
        free(buffer.mem)
        let rest = runningCount.subtract(1, ordering: .acquiringAndReleasing).newValue
        if rest == 0 {
            if !isStopping.load(ordering: .acquiring) {
                FUSELog.warning("The snapshot tree at '\(mountpoint)' was unmounted by somebody else")
            }
            workersEnded.broadcast()
        }
    }

    /// Unmounts, even under open files, which then give errors; ends the threads and gives leases back. Idempotent.
    func stop() {
        guard !isStopping.exchange(true, ordering: .acquiringAndReleasing) else { return }
        server.opens.refuseAll()
        if let mount {
            // Whoever unmounted it already may have mounted something else there.
            if MountTable.read().contains(where: { $0.id == mount.id && $0.mountpoint == mountpoint }) {
                Mountpoint.unmount(mountpoint)
            }
            // Copies of the mount in other namespaces, and open files after an unmount without root, keep it alive.
            if !workersEnded.waitFor(milliseconds: 200, { runningCount.load(ordering: .acquiring) == 0 }) {
                Mountpoint.abortConnection(device: mount.device)
            }
        } else {
            Mountpoint.unmount(mountpoint)
        }
        guard workersEnded.waitFor(milliseconds: 5000, { runningCount.load(ordering: .acquiring) == 0 }) else {
            // Only without root and with files still open: the session ends when they are closed or with the process,
            // and until then it must not be freed.
            FUSELog.warning("Files of the snapshot tree at '\(mountpoint)' are still open; its session is left to them")
            _ = Unmanaged.passRetained(self)
            return
        }
        for worker in workers.withLock({ workers in
            defer { workers = [] }
            return workers
        }) { worker.join() }
        notifier.stop()
        server.opens.closeAll()
        // The connection is dead, so that this only closes the device.
        fuse_session_unmount(session)
        fuse_session_destroy(session)
    }
}
