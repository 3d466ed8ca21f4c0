import LinuxSystem
import Synchronization

/// Counts Ctrl-C and SIGTERM from now on, instead of dying by them.
///
/// To be made before anything that starts a thread, a `Session` for example: a thread that is older would still die by
/// them, and the process with it.
final class InterruptFlag: Sendable {
    private let counter = Atomic<Int>(0)

    init() throws {
        let waiter = try SignalWaiter(signals: [Signals.interrupt, Signals.terminate])
        try SystemThread.start(name: "interrupts") { [self] in
            while (try? waiter.wait()) != nil { counter.add(1, ordering: .relaxed) }
        }
    }

    var count: Int { counter.load(ordering: .relaxed) }
}
