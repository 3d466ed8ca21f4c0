import ColdframeKit
import ConformanceKit
import LinuxSystem
import QMPWire
import Testing

@testable import AgentCore

/// What a format cannot do is refused in words, by the command that asks for it, and the node goes on.
@Suite struct CapabilityTests {
    private struct Wish: Sendable {
        var command: String
        var arguments: JSONObject
        /// One of these is in the refusal: the capability that is missing, or that nothing may be written.
        var texts: [String]
    }

    private static func wishes(beyond driver: any BlockDriver) -> [Wish] {
        var wishes: [Wish] = []
        if !(driver is any SnapshotBearing) {
            wishes.append(
                Wish(
                    command: "blockdev-snapshot-internal-sync", arguments: ["device": "n", "name": "t"],
                    texts: ["does not support internal snapshots", "is read only"]))
        }
        if !(driver is any Resizable) {
            wishes.append(
                Wish(
                    command: "block_resize", arguments: ["node-name": "n", "size": 1_048_576],
                    texts: ["does not support resize", "read-only", "read only"]))
        }
        if !(driver is any BitmapBearing) {
            wishes.append(
                Wish(
                    command: "block-dirty-bitmap-add", arguments: ["node": "n", "name": "b", "persistent": true],
                    texts: ["Operation not supported", "read-only", "read only"]))
        }
        return wishes
    }

    @Test(arguments: FormatUnderTest.all) func aMissingCapabilityIsRefusedInWords(format: FormatUnderTest) async throws
    {
        guard format.files == ["file"] else { return }
        let (image, wishes) = try await BlockingPool.shared.run {
            let image = try SubjectImage(format.subject, byteCount: 1 << 18, storage: .folder)
            let driver = try image.open()
            defer { try? driver.close() }
            return (image, Self.wishes(beyond: driver))
        }
        try await withAgent { agent in
            let file: JSONValue = ["driver": "file", "filename": .string(image.path("file"))]
            _ = try await agent.commands.execute(
                "blockdev-add",
                ["driver": .string(format.name), "node-name": "n", "auto-read-only": true, "file": file])
            for wish in wishes {
                let text = try await refusal(of: wish, agent, format)
                guard wish.texts.contains(where: { text.contains($0) }) else {
                    throw failure(format, "refuses \(wish.command) with '\(text)'")
                }
            }
            _ = try await agent.commands.execute("blockdev-del", ["node-name": "n"])
        }
    }

    @AgentActor
    private func refusal(of wish: Wish, _ agent: Agent, _ format: FormatUnderTest) async throws -> String {
        do { _ = try await agent.commands.execute(wish.command, wish.arguments) } catch { return error.description }
        throw failure(format, "does not refuse \(wish.command)")
    }
}
