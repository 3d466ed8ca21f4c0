import ColdframeKit
import LinuxSystem

/// A request from outside, on a thread of its own.
enum Disturbance {
    static func request(to node: BlockNode) {
        // Without a thread the test that waits for the request fails by its own time limit.
        _ = try? SystemThread.start(name: "disturbance") { try? node.flush() }
    }
}

enum Pause {
    static func briefly() { SystemThread.sleep(milliseconds: 1) }
    static func milliseconds(_ count: Int) { SystemThread.sleep(milliseconds: count) }
}
