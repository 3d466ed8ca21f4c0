import ColdframeKit

/// Finds a file in a guest's filesystem by its path. Links are followed inside the filesystem, and nowhere else.
public enum GuestPath {
    private static let linkLimit = 40
    private static let componentLimit = 4096

    /// The file at `path`, which begins at the top whether it begins with `/` or not. A link at its end is followed.
    /// Throws `.notFound` with the part of the path that is not there.
    public static func find(
        _ path: String, in filesystem: any GuestFilesystem
    ) throws(ColdframeError) -> GuestFileID {
        // The way from the top, so that `..` needs nothing of the filesystem.
        var way: [(name: String, file: GuestFileID)] = []
        var pending = Array(path.split(separator: "/").map(String.init).reversed())
        var linkCount = 0
        var stepCount = 0
        while let name = pending.popLast() {
            stepCount += 1
            guard stepCount <= componentLimit else {
                throw ColdframeError(.invalidArgument, "The path has more than \(componentLimit) parts")
            }
            let here = way.last?.file ?? filesystem.root
            if name == "." { continue }
            if name == ".." {
                _ = way.popLast()
                continue
            }
            guard try filesystem.attributes(of: here).kind == .directory else {
                throw ColdframeError(.notFound, "'\(text(way.map(\.name)))' is no directory", errno: 20)
            }
            guard let found = try filesystem.lookUp(name, in: here) else {
                throw ColdframeError(.notFound, "There is no '\(text(way.map(\.name) + [name]))'")
            }
            guard try filesystem.attributes(of: found).kind == .link else {
                way.append((name, found))
                continue
            }
            linkCount += 1
            guard linkCount <= linkLimit else {
                throw ColdframeError(
                    .invalidArgument, "'\(path)' leads through more than \(linkLimit) links", errno: 40)
            }
            let target = try filesystem.linkTarget(of: found)
            if target.utf8.first == UInt8(ascii: "/") { way = [] }
            pending += target.split(separator: "/").map(String.init).reversed()
        }
        return way.last?.file ?? filesystem.root
    }

    private static func text(_ names: [String]) -> String { "/" + names.joined(separator: "/") }
}
