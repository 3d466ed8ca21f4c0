import ColdframeKit

extension GraphNode {
    /// One of its users writes and resizes it, and lets nobody else do so: a format, as a rule.
    private var isOwned: Bool {
        let size: NodePermissions = [.write, .resize]
        return uses.contains { $0.permissions.isSuperset(of: size) && $0.shared.isDisjoint(with: size) }
    }

    /// Tells drivers that want to know, here and below filters, whether their size belongs to one user. Called when users of the
    /// node have come or gone.
    func tellOwnership() async throws {
        if let driver = block.driver as? any OwnershipFollowing {
            let isOwned = isOwned
            try await blocking { () throws(ColdframeError) in try driver.setOwned(isOwned) }
        }
        try await filtered?.node.tellOwnership()
    }
}
