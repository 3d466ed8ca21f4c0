import ColdframeKit
import LinuxSystem

/// Makes trees of the catalogue and remembers which inode number means what.
///
/// A number is never used for a second thing: the kernel caches names, attributes and content by it for good.
struct TreeBuilder {
    /// A file or directory below one tag.
    private enum InodeKey: Hashable {
        case tag(uuid: String?)
        /// Its content is part of its identity: what the kernel has cached of it can never be wrong.
        case information(text: [UInt8])
        case vmState(SnapshotKey, byteCount: UInt64)
        case node(uuid: String?, SnapshotKey)
        case disk(SnapshotKey, byteCount: UInt64)
    }

    /// What stands under one name of the root.
    private struct Built {
        var set: SnapshotSet
        var directory: TreeNode
        var inodes: [InodeKey: UInt64]
    }

    static let informationName = "info.json"
    static let vmStateName = "vmstate.bin"
    static let diskName = "disk.raw"

    /// By directory name.
    private var built: [String: Built] = [:]
    /// Numbers of the directory that is being built, before and now.
    private var known: [InodeKey: UInt64] = [:]
    private var used: [InodeKey: UInt64] = [:]
    private var nextInode = Tree.rootInode + 1
    private var lastChange = TreeDate(seconds: 0, nanoseconds: 0)
    private let agentName: String?

    init(agentName: String?) {
        self.agentName = agentName
    }

    /// The tree of `sets`. `now` becomes the date of its root.
    mutating func build(_ sets: [SnapshotSet], now: TreeDate) -> Tree {
        lastChange = later(now)
        var next: [String: Built] = [:]
        var taken: Set<String> = []
        for set in sets {
            let name = TreeName.unique(TreeName.escaped(set.tag), taken: taken)
            taken.insert(name)
            let set = set.withoutHolders
            if let before = built[name], before.set == set {
                next[name] = before
                continue
            }
            known = built[name]?.inodes ?? [:]
            used = [:]
            let directory = directory(of: set, name: name)
            next[name] = Built(set: set, directory: directory, inodes: used)
        }
        built = next
        let tags = next.values.map(\.directory)
        return Tree(
            root: TreeNode(
                inode: Tree.rootInode, parentInode: Tree.rootInode, name: "", content: .directory(sorted(tags)),
                date: lastChange))
    }

    /// The root's date never stands still or goes back: by it the kernel knows that a cached list is old.
    private func later(_ now: TreeDate) -> TreeDate {
        if (now.seconds, now.nanoseconds) > (lastChange.seconds, lastChange.nanoseconds) { return now }
        return lastChange.nanoseconds < 999_999_999
            ? TreeDate(seconds: lastChange.seconds, nanoseconds: lastChange.nanoseconds + 1)
            : TreeDate(seconds: lastChange.seconds + 1, nanoseconds: 0)
    }

    private mutating func directory(of set: SnapshotSet, name: String) -> TreeNode {
        let inode = inode(.tag(uuid: set.uuid))
        let date = (set.vmStateMember ?? set.members.first)?.snapshot.treeDate ?? lastChange
        let reserved: Set<String> = [Self.informationName, Self.vmStateName]
        var taken = reserved
        var children: [TreeNode] = []
        var files: [(member: SnapshotSet.Member, path: String)] = []
        for member in set.members {
            let name = TreeName.unique(TreeName.escaped(member.nodeName, reserved: reserved), taken: taken)
            taken.insert(name)
            files.append((member, "\(name)/\(Self.diskName)"))
            children.append(directory(of: member, in: set, parent: inode, name: name))
        }
        if let member = set.vmStateMember {
            let byteCount = member.snapshot.vmStateByteCount
            children.append(
                TreeNode(
                    inode: self.inode(.vmState(member.key, byteCount: byteCount)), parentInode: inode,
                    name: Self.vmStateName, content: .vmState(member.key, byteCount: byteCount), date: date))
        }
        let text = SnapshotDescription.json(of: set, diskFiles: files, agentName: agentName)
        children.append(
            TreeNode(
                inode: self.inode(.information(text: text)), parentInode: inode,
                name: Self.informationName, content: .text(text), date: date))
        return TreeNode(
            inode: inode, parentInode: Tree.rootInode, name: name, content: .directory(sorted(children)), date: date)
    }

    private mutating func directory(
        of member: SnapshotSet.Member, in set: SnapshotSet, parent: UInt64, name: String
    ) -> TreeNode {
        let inode = inode(.node(uuid: set.uuid, member.key))
        let byteCount = member.snapshot.diskByteCount
        let date = member.snapshot.treeDate
        let disk = TreeNode(
            inode: self.inode(.disk(member.key, byteCount: byteCount)), parentInode: inode,
            name: Self.diskName, content: .disk(member.key, byteCount: byteCount), date: date)
        return TreeNode(inode: inode, parentInode: parent, name: name, content: .directory([disk]), date: date)
    }

    private mutating func inode(_ key: InodeKey) -> UInt64 {
        // Twice the same key in one tree (a catalogue that lists a snapshot twice) still gets two numbers.
        if used[key] == nil, let number = known[key] {
            used[key] = number
            return number
        }
        let fresh = nextInode
        nextInode += 1
        if used[key] == nil { used[key] = fresh }
        return fresh
    }

    private func sorted(_ nodes: [TreeNode]) -> [TreeNode] {
        nodes.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    }
}

extension SnapshotSet {
    /// What the tree shows of a set: not who has it open, which changes with every open file.
    var withoutHolders: SnapshotSet {
        var copy = self
        copy.holders = []
        return copy
    }
}

extension SnapshotSet.Member {
    var key: SnapshotKey {
        SnapshotKey(
            nodeName: nodeName, snapshotID: snapshot.id, dateSeconds: snapshot.dateSeconds,
            dateNanoseconds: snapshot.dateNanoseconds)
    }
}

extension SnapshotInfo {
    var treeDate: TreeDate {
        TreeDate(seconds: Int64(dateSeconds), nanoseconds: min(dateNanoseconds, 999_999_999))
    }
}
