/// All that the export shows at one time. Immutable; the actor publishes a new one after each change.
final class Tree: Sendable {
    static let rootInode: UInt64 = 1

    let root: TreeNode
    let nodes: [UInt64: TreeNode]

    init(root: TreeNode) {
        self.root = root
        var nodes: [UInt64: TreeNode] = [:]
        Tree.visit(root) { nodes[$0.inode] = $0 }
        self.nodes = nodes
    }

    /// Children before their parents. The tree is three levels deep by construction.
    static func visit(_ node: TreeNode, _ body: (TreeNode) -> Void) {
        for child in node.children { visit(child, body) }
        body(node)
    }

    /// The sum of all sizes, for `statfs(2)`.
    var totalByteCount: UInt64 {
        nodes.values.reduce(0) { sum, node in
            let (value, overflow) = sum.addingReportingOverflow(node.byteCount)
            return overflow ? .max : value
        }
    }
}

/// What the kernel must forget when one tree replaces another.
struct TreeChange: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        var parent: UInt64
        var inode: UInt64
        var name: String
    }

    /// Entries that are gone, children before their parents.
    var removed: [Entry] = []
    /// New entries in directories that were there before.
    var added: [Entry] = []
    /// Directories that are still there and whose list changed.
    var changedDirectories: Set<UInt64> = []

    var isEmpty: Bool { removed.isEmpty && added.isEmpty }

    init(from old: Tree, to new: Tree) {
        Tree.visit(old.root) { node in
            if let now = new.nodes[node.inode], now.name == node.name { return }
            removed.append(Entry(parent: node.parentInode, inode: node.inode, name: node.name))
            if new.nodes[node.parentInode] != nil { changedDirectories.insert(node.parentInode) }
        }
        Tree.visit(new.root) { node in
            if let before = old.nodes[node.inode], before.name == node.name { return }
            guard old.nodes[node.parentInode] != nil else { return }
            added.append(Entry(parent: node.parentInode, inode: node.inode, name: node.name))
            changedDirectories.insert(node.parentInode)
        }
    }
}
