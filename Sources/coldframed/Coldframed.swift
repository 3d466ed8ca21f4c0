import AgentCore
import ColdframeKit
import LinuxSystem
import Logging
import QAPI

@main
struct Coldframed {
    static func main() async throws {
        try Signals.block([Signals.terminate, Signals.interrupt])
        Signals.ignoreBrokenPipe()
        let name = CommandLine.arguments.count > 2 ? CommandLine.arguments[2] : nil
        BranchTable.install(Modules.all.map(\.schema))
        let waiter = try SignalWaiter(signals: [Signals.terminate, Signals.interrupt])
        let logger = Logger(label: "coldframed", factory: { StreamLogHandler.standardError(label: $0) })
        await run(name, logger, waiter)
    }
    @AgentActor static func run(_ name: String?, _ logger: Logger, _ waiter: SignalWaiter) async {
        do {
            let agent = try Agent(.init(name: name, allowedBackingFolders: [], logger: logger), modules: Modules.all)
            let (stream, continuation) = AsyncStream<Void>.makeStream()
            agent.onQuit = { continuation.yield() }
            try agent.monitors.add(id: "m0", chardev: .unixServer(path: agent.directories!.runtime + "/qmp.sock"))
            _ = try SystemThread.start(name: "signals") {
                _ = try? waiter.wait(); continuation.yield()
            }
            for await _ in stream { break }
            await agent.stop()
            await agent.monitors.stop()
        } catch { print(error) }
    }
}
