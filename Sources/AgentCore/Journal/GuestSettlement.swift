import ColdframeKit

/// Brings a guest that was taken over, and its disks, to the end of what the earlier agent had begun on both.
///
/// | intent | the guest's memory | disks | guest |
/// |---|---|---|---|
/// | save, not committed | untouched | snapshots deleted (before) | goes on if it ran |
/// | load, `begin` | the old one: nothing was fed | put back (before) | goes on if it ran |
/// | load, `cut`, not fed | the old one | put back | goes on if it ran |
/// | load, `cut`, fed | the loaded one | as loaded | goes on if it ran |
/// | load, `cut`, feed failed; `lost` | neither | put back | stays stopped |
/// | load, `committed` | the loaded one | as loaded (before) | goes on if it ran |
///
/// "Before" is before the guest found its disks again: `IntentRecovery`.
@AgentActor
struct GuestSettlement {
    let recovery: IntentRecovery
    let guest: any Guest

    func run() async {
        for (step, intent) in recovery.journal.interrupted where intent.guestWasRunning != nil {
            guard let nodes = recovery.nodes(of: intent) else { continue }
            do {
                let end = try await settleLoad(intent, step, nodes)
                await guest.concludeLoad()
                if end == .lost {
                    try guest.setMemoryLost(true)
                } else if intent.guestWasRunning == true {
                    try await goOn()
                }
                try FaultPoint.recoverySettled.pass()
                try await recovery.close(intent, end)
            } catch {
                recovery.report(error, intent)
            }
        }
        // What an agent left that died after its last word on the matter.
        await guest.concludeLoad()
    }

    /// The step at which the operation is now.
    private func settleLoad(
        _ intent: Intent, _ step: Journal.Step, _ nodes: [IntentImages.Match]
    ) async throws -> Journal.Step {
        guard intent.operation == .load, step == .cut else { return step }
        if try await guest.runState() == .running {
            // Nobody but its own monitor can have done that: what it has written since must not be lost.
            throw ColdframeError(.busy, "the guest '\(guest.id)' runs, though its load was not finished: stop it")
        }
        switch try await guest.interruptedLoad() {
        case .loaded:
            try await record(.committed, intent)
            try await recovery.mend(intent, .committed, nodes)
            return .committed
        case .notBegun:
            try await recovery.mend(intent, .begin, nodes)
            // Before it goes on: the next agent must not take a guest that runs for one that waits for its state.
            try await record(.begin, intent)
            return .begin
        case .failed(let reason):
            recovery.logger.error("the load of '\(intent.tag)' had failed in the guest: \(reason)")
            try await record(.lost, intent)
            try await recovery.mend(intent, .lost, nodes)
            return .lost
        }
    }

    private func record(_ step: Journal.Step, _ intent: Intent) async throws {
        let journal = recovery.journal
        try await blocking { () throws(ColdframeError) in try journal.record(step, intent) }
    }

    /// Where our own stop or capture has left it; another state (shut down, panicked, an I/O error) is its own.
    private func goOn() async throws {
        guard case .stopped(let status) = try await guest.runState() else { return }
        let own: Set = ["paused", "postmigrate", "finish-migrate", "save-vm", "restore-vm", "prelaunch"]
        if own.contains(status) { try await guest.cont() }
    }
}
