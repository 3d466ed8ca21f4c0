import ColdframeKit
import LinuxSystem

/// Makes trees of the catalogue and remembers which inode number means what.
///
/// A number is never used for a second thing: the kernel caches names, attributes and content by it for good.
struct TreeBuilder {
    private enum InodeKey: Hashable {
        case tag(String, uuid: String?)
        /// Its content is part of its identity: what the kernel has cached of it can never be wrong.
        case information(tag: String, uuid: String?, text: [UInt8])
        case vmState(tag: String, SnapshotKey, byteCount: UInt64)
        case node(tag: String, uuid: String?, nodeName: String, SnapshotKey)
        case disk(tag: String, SnapshotKey, byteCount: UInt64)
    }

    static let informationName = "info.json"
    static let vmStateName = "vmstate.bin"
    static let diskName = "disk.raw"

    private var inodes: [InodeKey: UInt64] = [:]
    private var used: [InodeKey: UInt64] = [:]
    private var nextInode = Tree.rootInode + 1
    private var lastChange = TreeDate(seconds: 0, nanoseconds: 0)
    private let agentName: String?

    init(agentName: String?) {
        self.agentName = agentName
    }

    /// The tree of `sets`. `now` becomes the date of its root.
    mutating func build(_ sets: [SnapshotSet], now: TreeDate) -> Tree {
        used = [:]
        lastChange = later(now)
        var taken: Set<String> = []
        var tags: [TreeNode] = []
        for set in sets {
            let name = TreeName.unique(TreeName.escaped(set.tag), taken: taken)
            taken.insert(name)
            tags.append(directory(of: set, name: name))
        }
        inodes = used
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
        let inode = inode(.tag(set.tag, uuid: set.uuid))
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
                    inode: self.inode(.vmState(tag: set.tag, member.key, byteCount: byteCount)), parentInode: inode,
                    name: Self.vmStateName, content: .vmState(member.key, byteCount: byteCount), date: date))
        }
        let text = SnapshotDescription.json(of: set, diskFiles: files, agentName: agentName)
        children.append(
            TreeNode(
                inode: self.inode(.information(tag: set.tag, uuid: set.uuid, text: text)), parentInode: inode,
                name: Self.informationName, content: .text(text), date: date))
        return TreeNode(
            inode: inode, parentInode: Tree.rootInode, name: name, content: .directory(sorted(children)), date: date)
    }

    private mutating func directory(
        of member: SnapshotSet.Member, in set: SnapshotSet, parent: UInt64, name: String
    ) -> TreeNode {
        let inode = inode(.node(tag: set.tag, uuid: set.uuid, nodeName: member.nodeName, member.key))
        let byteCount = member.snapshot.diskByteCount
        let date = member.snapshot.treeDate
        let disk = TreeNode(
            inode: self.inode(.disk(tag: set.tag, member.key, byteCount: byteCount)), parentInode: inode,
            name: Self.diskName, content: .disk(member.key, byteCount: byteCount), date: date)
        return TreeNode(inode: inode, parentInode: parent, name: name, content: .directory([disk]), date: date)
    }

    private mutating func inode(_ key: InodeKey) -> UInt64 {
        // Twice the same key in one tree (a catalogue that lists a snapshot twice) still gets two numbers.
        if used[key] == nil, let known = inodes[key] {
            used[key] = known
            return known
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
