import ColdframeKit
import Glibc

@testable import AgentCore

/// What disks and snapshots hold, in blocks of one value each: what an operation may leave is one of two of these.
struct CrashMoment: Equatable {
    static let blockCount = 6
    static let blockByteCount = 4096

    /// By disk; a block's value, or -1 for one whose bytes differ.
    var disks: [[Int]]
    /// By tag; of each disk the blocks, nil where it has no such snapshot.
    var tags: [String: [[Int]?]] = [:]
    /// Tags with a guest's state.
    var states: Set<String> = []

    init(diskCount: Int) {
        disks = Array(repeating: Array(repeating: 0, count: Self.blockCount), count: diskCount)
    }

    /// What an agent finds.
    @AgentActor
    init(reading nodes: [GraphNode]) throws {
        disks = try nodes.map { try Self.blocks($0.block.driver) }
        for (index, node) in nodes.enumerated() {
            guard let bearer = node.block.driver as? any VMStateBearing else { continue }
            for snapshot in bearer.snapshots {
                var members = tags[snapshot.name] ?? Array(repeating: nil, count: nodes.count)
                members[index] = try Self.blocks(bearer.openSnapshot(id: snapshot.id))
                tags[snapshot.name] = members
                guard snapshot.vmStateByteCount > 0 else { continue }
                let state = try StateReading.measure(bearer.openVMState(ofSnapshot: snapshot.id))
                guard SetRecord(snapshot.annotation)?.state == state else {
                    throw ColdframeError(.corrupt, "The state of '\(snapshot.name)' is not the one that was saved")
                }
                states.insert(snapshot.name)
            }
        }
    }

    private static func blocks(_ driver: any BlockDriver) throws -> [Int] {
        try (0..<blockCount).map { index in
            var bytes = [UInt8](repeating: 0, count: blockByteCount)
            try bytes.withUnsafeMutableBytes { try driver.read(into: $0, at: UInt64(index * blockByteCount)) }
            let isUniform = bytes.withUnsafeBytes { memcmp($0.baseAddress!, $0.baseAddress! + 1, $0.count - 1) == 0 }
            return isUniform ? Int(bytes[0]) : -1
        }
    }

    /// The same whatever these blocks hold: they were being written.
    func ignoring(_ blocks: [(disk: Int, block: Int)]) -> CrashMoment {
        var copy = self
        for (disk, block) in blocks { copy.disks[disk][block] = 0 }
        return copy
    }
}

/// One operation of a random sequence, chosen so that it can be done at its moment.
enum CrashOperation {
    /// One block of each disk, then a flush of each.
    case write(blocks: [Int], value: Int)
    case save(tag: String, withGuest: Bool)
    case load(tag: String)
    case delete(tag: String)
    case transaction(tag: String)

    static func random(
        number: Int, _ moment: CrashMoment, using generator: inout some RandomNumberGenerator
    ) -> CrashOperation {
        let tag = moment.tags.keys.sorted().randomElement(using: &generator)
        switch (Int.random(in: 0..<9, using: &generator), tag) {
        case (0...1, _):
            let blocks = moment.disks.map { _ in Int.random(in: 0..<CrashMoment.blockCount, using: &generator) }
            return .write(blocks: blocks, value: number + 1)
        case (2, _): return .save(tag: "s\(number)", withGuest: false)
        case (3...4, _): return .save(tag: "g\(number)", withGuest: true)
        case (5...6, let tag?): return .load(tag: tag)
        case (7, let tag?): return .delete(tag: tag)
        default: return .transaction(tag: "t\(number)")
        }
    }

    /// What it makes of a moment.
    func applied(to moment: CrashMoment) -> CrashMoment {
        var new = moment
        switch self {
        case .write(let blocks, let value):
            for (disk, block) in blocks.enumerated() { new.disks[disk][block] = value }
        case .save(let tag, let withGuest):
            new.tags[tag] = moment.disks
            if withGuest { new.states.insert(tag) }
        case .transaction(let tag): new.tags[tag] = moment.disks
        case .load(let tag): new.disks = (moment.tags[tag] ?? []).compactMap { $0 }
        case .delete(let tag):
            new.tags[tag] = nil
            new.states.remove(tag)
        }
        return new
    }

    var writtenBlocks: [(disk: Int, block: Int)] {
        guard case .write(let blocks, _) = self else { return [] }
        return blocks.enumerated().map { ($0.offset, $0.element) }
    }
}
