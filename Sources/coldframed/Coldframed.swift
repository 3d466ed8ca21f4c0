import AgentCore
import ColdframeKit
import LinuxSystem
import QAPI

/// `coldframed`: reads its options, starts the agent, and ends it at `quit`, SIGTERM or SIGINT.
@main
struct Coldframed {
    /// Not asynchronous: the runtime would have threads before the first line, which would not have the signals blocked.
    static func main() {
        do {
            let signals = try SignalWaiter(signals: [Signals.terminate, Signals.interrupt, Signals.hangUp])
            Signals.ignoreBrokenPipe()
            BranchTable.install(Modules.all.map(\.schema))
            let plan = try CommandLineParser.parse(arguments: Array(CommandLine.arguments.dropFirst()))
            switch plan.request {
            case .showHelp: StandardStreams.write(HelpText.text + "\n", to: 1)
            case .showVersion: StandardStreams.write("coldframed \(AgentVersion.text)\n", to: 1)
            case .showFaultPoints:
                StandardStreams.write(FaultPoint.allCases.map { $0.listing + "\n" }.joined(), to: 1)
            case .run: serve(plan, signals)
            }
        } catch {
            fail(error)
        }
    }

    /// The main thread waits for signals; everything else happens elsewhere.
    private static func serve(_ plan: StartupPlan, _ signals: SignalWaiter) -> Never {
        let (ends, end) = AsyncStream<DaemonEnd>.makeStream()
        if let parent = plan.parent {
            ProcessControl.signalAtParentsEnd(Signals.terminate)
            // It may have ended before that.
            guard ProcessControl.parentPID == parent else {
                fail(StartupError("--end-with-parent \(parent)", "The parent process has ended, or is another"))
            }
        }
        Task {
            do {
                try await Daemon(plan: plan).run(until: ends, end: end)
                ProcessControl.exitImmediately(0)
            } catch {
                fail(error)
            }
        }
        while (try? signals.wait()) != nil { end.yield(.signal) }
        fail(StartupError("signals cannot be waited for any more"))
    }

    private static func fail(_ error: any Error) -> Never {
        StandardStreams.write("coldframed: \(error)\n", to: 2)
        ProcessControl.exitImmediately(1)
    }
}
