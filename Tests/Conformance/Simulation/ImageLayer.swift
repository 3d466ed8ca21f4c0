import ColdframeKit
import ConformanceKit
import LinuxSystem
import QMPWire

/// What an image holds itself, without what is below it, as qemu-img reads the file beside the agent.
struct ImageLayer: Sendable {
    /// By number of the block what fills it: nil where that is not one value.
    let blocks: [Int: UInt8?]

    init(path: String, tools: ToolFolder) throws {
        let source =
            "json:{\"driver\": \"qcow2\", \"backing\": null, \"file\": {\"driver\": \"file\", \"filename\": \"\(path)\"}}"
        let map = try tools.require("qemu-img", "map", "-U", "--output=json", source)
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
        let raw = tools.path("layer.raw")
        defer { try? Files.unlink(raw) }
        try tools.require("qemu-img", "convert", "-q", "-U", "-O", "raw", source, raw)
        let bytes = try Files.readAll(raw, limit: 1 << 30)
        var blocks: [Int: UInt8?] = [:]
        for index in held {
            let start = index * SimulatedDisk.blockByteCount
            let block = bytes[start..<start + SimulatedDisk.blockByteCount]
            blocks[index] = .some(block.allSatisfy { $0 == block[start] } ? block[start] : nil)
        }
        self.blocks = blocks
    }
}
