import ColdframeKit
import LinuxSystem

extension QEMUGuest: ReplaceableGuest {
    /// What a QEMU needs beside its guest's memory.
    private nonisolated static let ownMemoryByteCount: UInt64 = 128 << 20

    var freeSlot: Int { request.freeSlot }

    func replacementBlockers(stateByteCount: UInt64) async throws -> [String] {
        guard !request.isAttached else {
            return ["It was started by somebody else, who alone can start another one like it."]
        }
        guard capture == nil else { return ["A capture of it is under way."] }
        let line = ReplacementCommandLine(user: request.command, slot: freeSlot)
        var blockers = line.blockers
        let names = Set(disks.map(\.name))
        blockers += try await Preflight(monitor: monitor, command: command, disks: names).foreignDisks()
        let memory = try await machineIdentity().memoryByteCount
        blockers += try await BlockingPool.shared.run { () throws(SystemError) in
            try Self.shortages(line, memoryByteCount: memory, stateByteCount: stateByteCount)
        }
        return blockers
    }

    /// What the host has too little of for a second process.
    private nonisolated static func shortages(
        _ line: ReplacementCommandLine, memoryByteCount: UInt64, stateByteCount: UInt64
    ) throws(SystemError) -> [String] {
        var shortages: [String] = []
        var ordinary = ownMemoryByteCount
        var isHuge = line.takesHugePages
        for path in line.memoryPaths where !isHuge { isHuge = try HostMemory.isOfHugePages(path: path) }
        if isHuge {
            // All of them at once: huge pages are reserved when they are mapped.
            let free = try HostMemory.freeHugePageByteCount()
            if free < memoryByteCount {
                shortages.append(
                    "The host has \(free >> 20) MiB of huge pages free, and a second process needs "
                        + "\(memoryByteCount >> 20): reserve more (vm.nr_hugepages), or load in place.")
            }
        } else {
            // Pages of zeros are in no state, and cost nothing until the guest writes to them.
            ordinary += min(memoryByteCount, stateByteCount)
        }
        let available = try HostMemory.availableByteCount()
        if available < ordinary {
            shortages.append(
                "The host has \(available >> 20) MiB of memory to spare, and a second process with this state needs "
                    + "\(ordinary >> 20): give the host more, or end something.")
        }
        return shortages
    }

    func beginReplacement() async throws -> any GuestReplacement {
        try await QEMUReplacement(of: self)
    }
}
