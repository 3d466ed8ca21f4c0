import ColdframeKit
import LinuxSystem

extension QEMUGuest: ReplaceableGuest {
    /// What a QEMU needs beside its guest's memory.
    private static let ownMemoryByteCount: UInt64 = 128 << 20

    var freeSlot: Int { request.freeSlot }

    func replacementBlockers(stateByteCount: UInt64) async throws -> [String] {
        guard !request.isAttached else {
            return ["It was started by somebody else, who alone can start another one like it."]
        }
        guard capture == nil else { return ["A capture of it is under way."] }
        var blockers = ReplacementCommandLine(user: request.command, slot: freeSlot).blockers
        blockers += try await Preflight(monitor: monitor, command: command, disks: Set(diskNodeNames)).foreignDisks()
        let memory = try await machineIdentity().memoryByteCount
        // Pages of zeros are in no state, and cost nothing until the guest writes to them.
        let needed = min(memory, stateByteCount) + Self.ownMemoryByteCount
        let available = try await BlockingPool.shared.run { () throws(SystemError) in
            try HostMemory.availableByteCount()
        }
        if available < needed {
            blockers.append(
                "The host has \(available >> 20) MiB of memory to spare, and a second process with this state needs "
                    + "\(needed >> 20): give the host more, or end something.")
        }
        return blockers
    }

    func beginReplacement() async throws -> any GuestReplacement {
        try await QEMUReplacement(of: self)
    }
}
