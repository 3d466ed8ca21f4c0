import ColdframeKit
import LinuxSystem

/// Keeps a second agent of the same name away: a write lock on a file in the runtime folder. It ends with the process,
/// however that ends.
final class AgentLock: Sendable {
    private let file: Descriptor

    init(name: String, runtimeDirectory: String) throws(ColdframeError) {
        let path = runtimeDirectory + "/lock"
        do {
            file = try Descriptor.open(path, [.readWrite, .create], mode: 0o600)
        } catch {
            throw ColdframeError(error, "Could not open the agent's lock '\(path)'")
        }
        do {
            try file.setOFDLock(.write, offset: 0, byteCount: 1)
        } catch {
            throw ColdframeError(.busy, "An agent named '\(name)' is running already; see 'coldframe status \(name)'")
        }
    }
}
