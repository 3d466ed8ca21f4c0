import ColdframeKit
import QAPI
import QMPWire

// What a tree never asks of the agent.
extension FakeServices {
    func runtimeDirectory(for module: String) throws -> String { throw unused }
    func stateDirectory(for module: String) throws -> String { throw unused }
    func node(named name: String) throws -> BlockNode { throw unused }
    func bitmap(
        named name: String, node nodeName: String, throughBacking: Bool
    ) throws -> (node: BlockNode, bitmap: DirtyBitmap) { throw unused }
    func addPrivateNode(name: String, driver: any BlockDriver) throws -> BlockNode { throw unused }
    func removePrivateNode(name: String) async throws { throw unused }
    func claim(_ node: BlockNode, asDisk name: String, of holder: String, isWriter: Bool) throws -> any NodeClaim {
        throw unused
    }
    func addBlockdev(_ options: BlockdevOptions) async throws { throw unused }
    func addExport(_ options: BlockExportOptions) async throws { throw unused }
    func removeExport(id: String) async throws { throw unused }
    func exportURIs(of node: BlockNode) -> [String] { [] }
    func startDiskServer(socketPath: String) async throws -> any DiskServer { throw unused }
    func postEvent(_ name: String, data: JSONObject?) {}
    func forwardGuestEvent(_ event: JSONObject) {}
    func guestDied(id: String, reason: String) {}

    private var unused: ColdframeError { ColdframeError(.unsupported, "Not part of this test") }
}
