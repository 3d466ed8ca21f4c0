import ColdframeKit
import LinuxSystem

/// Runs work that blocks on a thread made for it; the actor goes on with other commands meanwhile.
func blocking<T: Sendable>(
    _ body: @escaping @Sendable () throws(ColdframeError) -> T
) async throws(ColdframeError) -> T {
    try await BlockingPool.shared.run(body)
}
