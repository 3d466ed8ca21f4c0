import ColdframeKit
import ConformanceKit
import LinuxSystem
import QMPWire

/// What images hold, as qemu-img reads their files beside the agent, in blocks of a simulated disk.
struct ImageLayer: Sendable {
    /// By number of the block what fills it: nil where that is not one value. Blocks that no image of the chain holds are
    /// not in it.
    let blocks: [Int: UInt8?]

    /// What a chain of images shows.
    /// - Parameters:
    ///   - paths: the topmost first. What an image itself says of its backing image does not count.
    ///   - isInUse: the images are, so that they are read without a lock.
    init(paths: [String], isInUse: Bool, tools: ToolFolder) throws {
        let name = Self.name(of: paths)
        let sharing = isInUse ? ["-U"] : []
        let map = try tools.require("qemu-img", ["map", "--output=json"] + sharing + [name])
        let runs = try JSONParser.parse(map).arrayValue ?? []
        var held: [Int] = []
        for run in runs where run["present"]?.boolValue == true {
            guard let start = run["start"]?.uint64Value, let byteCount = run["length"]?.uint64Value else {
                throw ColdframeError(.io, "qemu-img map prints what is no map: \(map)")
            }
            let size = UInt64(SimulatedDisk.blockByteCount)
            held += Int(start / size)..<Int((start + byteCount + size - 1) / size)
        }
        guard !held.isEmpty else {
            blocks = [:]
            return
        }
        blocks = try Self.read(["-O", "raw"] + sharing + [name], held, tools: tools)
    }

    /// What some blocks of an internal snapshot show.
    init(snapshot tag: String, paths: [String], blocks: [Int], tools: ToolFolder) throws {
        let options = ["-l", "snapshot.name=\(tag)", "-O", "raw", Self.name(of: paths)]
        self.blocks = try Self.read(options, blocks, tools: tools)
    }

    private static func name(of paths: [String]) -> String {
        var source = JSONValue.null
        for path in paths.reversed() {
            source = [
                "driver": "qcow2", "backing": source, "file": ["driver": "file", "filename": .string(path)],
            ]
        }
        return "json:" + String(decoding: JSONWriter.message(source), as: UTF8.self).filter { !$0.isNewline }
    }

    private static func read(_ options: [String], _ indices: [Int], tools: ToolFolder) throws -> [Int: UInt8?] {
        let raw = tools.path("layer.raw")
        defer { try? Files.unlink(raw) }
        try tools.require("qemu-img", ["convert", "-q"] + options + [raw])
        let bytes = try Files.readAll(raw, limit: 1 << 30)
        var blocks: [Int: UInt8?] = [:]
        for index in indices {
            let start = index * SimulatedDisk.blockByteCount
            guard start + SimulatedDisk.blockByteCount <= bytes.count else { continue }
            let block = bytes[start..<start + SimulatedDisk.blockByteCount]
            blocks[index] = .some(block.allSatisfy { $0 == block[start] } ? block[start] : nil)
        }
        return blocks
    }
}
