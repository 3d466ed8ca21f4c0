import LinuxSystem
import Synchronization

/// Counts Ctrl-C from now on, instead of dying by it.
final class InterruptFlag: Sendable {
    private let counter = Atomic<Int>(0)

    init() throws {
        let waiter = try SignalWaiter(signals: [Signals.interrupt])
        _ = SystemThread.start(name: "interrupts") { [counter = Counter(self)] in
            while (try? waiter.wait()) != nil { counter.add() }
        }
    }

    var count: Int { counter.load(ordering: .relaxed) }

    private struct Counter: Sendable {
        let flag: InterruptFlag
        init(_ flag: InterruptFlag) { self.flag = flag }
        func add() { flag.counter.add(1, ordering: .relaxed) }
    }
}
