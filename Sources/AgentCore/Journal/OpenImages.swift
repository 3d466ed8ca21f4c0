import ColdframeKit
import LinuxSystem
import Logging
import QMPWire

/// Which images are open for writing: a small file for each, from before the first write to behind a close in order.
///
/// An image whose file is there when it is opened belonged to an agent that was killed, or to a host that lost power: it
/// may have clusters that were reserved and never used. They are freed before anybody uses the node. (That is also how
/// the space of an interrupted save's state comes back.)
@AgentActor
final class OpenImages {
    private let folder: String
    private let logger: Logger
    /// Marked by this agent.
    private var marked: Set<FileIdentity> = []

    init(stateDirectory: String, logger: Logger) throws(ColdframeError) {
        folder = try AgentDirectories.make(stateDirectory + "/open-images")
        self.logger = logger
    }

    /// Before anybody uses a node that was just opened. Nothing here keeps it from being used: a leak is no damage.
    func opened(_ node: GraphNode) async {
        guard let driver = node.block.driver as? any LeakReclaiming, !driver.isReadOnly, let image = node.fileIdentity
        else { return }
        let (path, name) = (path(image), node.name)
        do {
            let freed = try await blocking { () throws(ColdframeError) -> UInt64? in
                if Files.exists(path) {
                    try FaultPoint.recoveryLeaks.pass(name)
                    let freed = try driver.reclaimLeaks()
                    try FaultPoint.recoveryLeaksFreed.pass(name)
                    return freed
                }
                try Self.mark(path, image)
                return nil
            }
            marked.insert(image)
            if let freed, freed > 0 {
                logger.notice("\(freed) bytes of '\(image.path)', leaked by an earlier agent, are free again")
            }
        } catch {
            logger.warning("image '\(image.path)' may have leaked space: \(error)")
        }
    }

    /// Behind the close of a node, with the identity that it had. After a close that failed the file stays.
    func closed(_ image: FileIdentity) async {
        guard marked.remove(image) != nil else { return }
        let path = path(image)
        // A file that stays means a count of the image at its next opening, no more.
        await BlockingPool.shared.run { try? Files.unlink(path) }
    }

    private nonisolated static func mark(_ path: String, _ image: FileIdentity) throws(ColdframeError) {
        var bytes: [UInt8] = []
        JSONWriter.compact(.object(["path": .string(image.path)]), into: &bytes)
        do {
            try Files.replaceAtomically(path, contents: bytes)
        } catch {
            throw ColdframeError(error, "Could not note that '\(image.path)' is open")
        }
    }

    /// By inode and birth, which a reboot does not change; a device's number may.
    private func path(_ image: FileIdentity) -> String {
        "\(folder)/\(image.inode)-\(image.birthNanoseconds ?? image.device)"
    }
}
