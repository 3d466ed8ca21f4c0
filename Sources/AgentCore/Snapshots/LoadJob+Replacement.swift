import ColdframeKit
import LinuxSystem
import QMPWire

/// `snapshot-load` with way `replace`: a second process of the guest takes the state, and then the place of the first.
///
/// | step | old process | new process | disks | after a kill of the agent here |
/// |---|---|---|---|---|
/// | 1 | runs | none | the old one's | nothing happened |
/// | 2 `begin`, with the new one's slot | runs | starts, is fed, stands still | the old one's | the new one is ended |
/// | 3 `begin`, with the run state | stopped | stands still | wound back, passed on | and disks are put back, the old one goes on |
/// | 4 `committed` | stopped | goes on | the new one's | the old one is ended, the undos are deleted |
/// | 5 `cleared` | ended | the guest | the new one's | |
///
/// Whatever fails in 1 to 3 ends the new process, and the old one goes on as if nothing had been.
extension LoadJob {
    func replace(
        _ guest: any Guest, _ devices: SnapshotDevices, _ targets: [SnapshotInfo], _ control: any JobControl
    ) async throws {
        try preflight.checkCoverage(of: guest, devices)
        try await preflight.checkMachine(guest, targets)
        let (stateNode, target) = try stateMember(devices, targets)
        guard let guest = guest as? any ReplaceableGuest, let options = context.guestOptions() else {
            throw ColdframeError(.unsupported, "Guest '\(guest.id)' cannot be replaced: use way 'in-place'")
        }
        let blockers = try await guest.replacementBlockers(stateByteCount: target.vmStateByteCount)
        guard blockers.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "A second process cannot stand beside guest '\(guest.id)': \(blockers.joined(separator: " ")) Or use "
                    + "way 'in-place'; save the guest before that if what it has in memory matters.")
        }
        try await control.checkpoint()
        var intent = intent(devices)
        intent.replacement = Intent.Replacement(slot: guest.freeSlot, guestOptions: options)
        let swap = Swap(intent: intent, transaction: transaction(devices, targets, intent), guest: guest)
        context.catalogue.hide(intent)
        let replacement: any GuestReplacement
        do {
            try await context.record(.begin, intent)
            try FaultPoint.loadIntent.pass()
            replacement = try await guest.beginReplacement()
            do {
                try FaultPoint.replaceSpawned.pass()
                try await feed(replacement, stateNode, target, control)
                try FaultPoint.replaceFed.pass()
                try await control.checkpoint()
                try await pass(swap, to: replacement, control)
            } catch {
                await replacement.abandon()
                throw error
            }
        } catch {
            await giveUp(swap)
            throw error
        }
        try await finish(swap, replacement, control)
    }

    /// What a load by replacement works on.
    @AgentActor
    final class Swap {
        var intent: Intent
        let transaction: Transaction
        let guest: any ReplaceableGuest
        var wasRunning = false

        init(intent: Intent, transaction: Transaction, guest: any ReplaceableGuest) {
            self.intent = intent
            self.transaction = transaction
            self.guest = guest
        }
    }

    // MARK: 2: the state

    private func feed(
        _ replacement: any GuestReplacement, _ node: GraphNode, _ target: SnapshotInfo, _ control: any JobControl
    ) async throws {
        let (lease, source) = try await openState(node, target, control)
        defer { lease.release() }
        let stream = replacement.stream
        let state: SetRecord.State
        do {
            state = try await blocking { () throws(ColdframeError) in
                try StateFeed(stream: stream, control: control).run(source)
            }
        } catch {
            // A process that ends while it reads says why, which a broken stream does not.
            if error.code == .peer { try await replacement.loaded() }
            throw error
        }
        try check(state, node, target)
        try await replacement.loaded()
    }

    // MARK: 3: the disks

    private func pass(
        _ swap: Swap, to replacement: any GuestReplacement, _ control: any JobControl
    ) async throws {
        control.setPausable(false)
        swap.guest.setHeld(true)
        defer {
            swap.guest.setHeld(false)
            control.setPausable(true)
        }
        switch try await swap.guest.runState() {
        case .running: swap.wasRunning = true
        case .stopped: swap.wasRunning = false
        case .gone(let reason): throw ColdframeError(.peer, "Guest '\(swap.guest.id)' is gone: \(reason)")
        }
        // As it is now: until here its user could stop it and let it go on.
        swap.intent.guestWasRunning = swap.wasRunning
        try await context.record(.begin, swap.intent)
        do {
            if swap.wasRunning { try await swap.guest.stop() }
            try FaultPoint.loadStopped.pass()
            try await swap.transaction.drain(deadlineNanoseconds: Self.drainDeadline)
            defer { swap.transaction.letGo() }
            try await swap.transaction.cut(concurrently: true)
            do {
                try await commit(swap, replacement)
            } catch {
                try await swap.transaction.abort()
                throw error
            }
        } catch {
            try await letGoOn(swap.guest, swap.transaction, wasRunning: swap.wasRunning, because: error)
        }
    }

    private func commit(_ swap: Swap, _ replacement: any GuestReplacement) async throws {
        switch try await swap.guest.runState() {
        case .stopped: break
        case .running:
            throw ColdframeError(.busy, "Guest '\(swap.guest.id)' was made to run while its disks were wound back")
        case .gone(let reason): throw ColdframeError(.peer, "Guest '\(swap.guest.id)' is gone: \(reason)")
        }
        try replacement.passDisks()
        do {
            try FaultPoint.replacePassed.pass()
            try await context.record(.committed, swap.intent)
        } catch {
            replacement.takeDisksBack()
            throw error
        }
    }

    // MARK: 4: the new process is the guest

    private func finish(
        _ swap: Swap, _ replacement: any GuestReplacement, _ control: any JobControl
    ) async throws {
        control.setPausable(false)
        defer { control.setPausable(true) }
        let guest = replacement.takePlace()
        guest.setHeld(true)
        defer { guest.setHeld(false) }
        context.replaceGuest(swap.guest, guest)
        // Too late to fail.
        try? FaultPoint.loadCommitted.pass()
        var failures: [String] = []
        if swap.wasRunning {
            do {
                try await guest.cont()
            } catch {
                failures.append("the guest does not go on: \(ColdframeError(wrapping: error).message)")
            }
        }
        try? FaultPoint.loadContinued.pass()
        do {
            try await replacement.endPredecessor()
        } catch {
            failures.append("the old process does not end: \(ColdframeError(wrapping: error).message)")
        }
        try? FaultPoint.replaceEnded.pass()
        await swap.transaction.commit()
        await close(swap.intent, isUndone: true)
        guard failures.isEmpty else {
            throw ColdframeError(
                .peer, "Snapshot '\(arguments.tag)' is loaded, but \(failures.joined(separator: "; "))")
        }
    }

    /// The new process is gone. Where the disks could not be put back the intent stays, and names it no longer.
    private func giveUp(_ swap: Swap) async {
        let isUndone = swap.transaction.isUndone
        if !isUndone {
            swap.intent.replacement = nil
            do {
                try await context.record(.begin, swap.intent)
            } catch {
                context.logger.error("\(ColdframeError(wrapping: error))")
            }
        }
        await close(swap.intent, isUndone: isUndone)
    }
}
