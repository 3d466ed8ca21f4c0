import AgentCore
import LinuxSystem
import Logging
import QAPI

/// `coldframed`: reads its options, starts the agent, and ends it at `quit`, SIGTERM or SIGINT.
@main
struct Coldframed {
    static func main() async {
        do {
            // First, so that every thread that comes after leaves these signals to the waiter.
            let signals = try SignalWaiter(signals: [Signals.terminate, Signals.interrupt, Signals.hangUp])
            Signals.ignoreBrokenPipe()
            BranchTable.install(Modules.all.map(\.schema))
            let plan = try CommandLineParser.parse(arguments: Array(CommandLine.arguments.dropFirst()))
            switch plan.request {
            case .showHelp: StandardStreams.write(HelpText.text + "\n", to: 1)
            case .showVersion: StandardStreams.write("coldframed \(AgentVersion.text)\n", to: 1)
            case .run: try await Daemon(plan: plan, signals: signals).run()
            }
        } catch {
            StandardStreams.write("coldframed: \(error)\n", to: 2)
            ProcessControl.exitImmediately(1)
        }
    }
}
