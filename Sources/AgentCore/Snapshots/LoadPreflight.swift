import ColdframeKit
import LinuxSystem
import QAPI

/// What forbids a load, found before the guest is stopped or a disk is touched.
@AgentActor
struct LoadPreflight {
    let arguments: SnapshotLoadArguments
    let context: SnapshotContext

    func targets(_ devices: SnapshotDevices) throws -> [SnapshotInfo] {
        let found = devices.snapshots(tagged: arguments.tag)
        let targets = found.compactMap(\.snapshot)
        guard targets.count == found.count else {
            throw ColdframeError(.notFound, "Snapshot '\(arguments.tag)' does not exist in one or more devices")
        }
        if let name = arguments.vmstate { _ = try devices.stateNode(named: name) }
        let records = targets.map { SetRecord($0.annotation) }
        if let record = records.first(where: { $0 != nil }) ?? nil {
            guard records.allSatisfy({ $0?.uuid == record.uuid }) else {
                throw ColdframeError(
                    .invalidArgument,
                    "The snapshots named '\(arguments.tag)' on these devices are not of one save: they show different "
                        + "moments")
            }
            guard Int(record.memberCount) == targets.count else {
                throw ColdframeError(
                    .invalidArgument,
                    "Snapshot '\(arguments.tag)' was made of \(record.memberCount) devices, and \(targets.count) are "
                        + "given: name them all")
            }
        }
        return targets
    }

    func checkMachine(_ guest: any Guest, _ targets: [SnapshotInfo]) async throws {
        guard let record = targets.lazy.compactMap({ SetRecord($0.annotation) }).first,
            let sets = context.sets
        else { return }
        guard let saved = await BlockingPool.shared.run({ sets.read(uuid: record.uuidText) }) else { return }
        let now = try await guest.machineIdentity()
        var differences: [String] = []
        if saved.machine.machineType != now.machineType {
            differences.append("machine type '\(saved.machine.machineType)', now '\(now.machineType)'")
        }
        if saved.machine.memoryByteCount != now.memoryByteCount {
            differences.append("\(saved.machine.memoryByteCount) bytes of memory, now \(now.memoryByteCount)")
        }
        if saved.machine.commandLine != now.commandLine {
            differences.append("another command line: \(saved.machine.commandLine.joined(separator: " "))")
        }
        guard differences.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "Snapshot '\(arguments.tag)' is of another machine than the running one: it had "
                    + differences.joined(separator: "; "))
        }
    }

    func checkCoverage(of guest: any Guest, _ devices: SnapshotDevices) throws {
        let given = Set(devices.nodes.map(\.name))
        let missing = guest.diskNodeNames.filter {
            !given.contains($0) && !(context.graph.find(nodeName: $0)?.block.isReadOnly ?? true)
        }
        guard missing.isEmpty else {
            throw ColdframeError(
                .invalidArgument,
                "The guest writes to \(missing.map { "'\($0)'" }.joined(separator: ", ")), which 'devices' does not "
                    + "name: its disks go back together or not at all")
        }
    }
}
