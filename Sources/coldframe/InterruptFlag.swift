import LinuxSystem
import Synchronization

/// Counts Ctrl-C and SIGTERM from now on, instead of dying by them.
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
