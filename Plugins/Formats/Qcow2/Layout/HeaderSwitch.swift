import ColdframeKit

/// Replaces what stands in an image's first cluster, so that a crash leaves the old header or the new one, also on a disk
/// that writes each sector by itself.
///
/// What switches is the first sector. Whatever of the new header lies behind it (the end of long extensions, the backing
/// file's name) is written before, where the old header has nothing, and flushed. Where it has something, there is another
/// header in between, which has all that is new in another arrangement: without the names of features, which are only
/// there to be shown, or with blank ones as a bridge over what is in the way.
///
/// A cluster that is too small to hold both the old and the new is written in one piece: a thing of names of hundreds of
/// bytes in clusters of a few thousand at most.
struct HeaderSwitch {
    private let file: ImageFile
    private let clusterByteCount: Int
    /// What the file must begin with, durably, before anybody relies on what `run` has returned or thrown: a write of the first
    /// sector has failed, and may stand there all the same.
    private(set) var owed: [UInt8]?

    init(_ file: ImageFile, _ geometry: Geometry) {
        self.file = file
        clusterByteCount = Int(geometry.clusterByteCount)
    }

    /// From the header that is in force to `new`. Durable when it returns what is in force then, which may lack the names
    /// of features. Throws with the old header in force, once what is `owed` is written.
    mutating func run(from old: Header, to new: HeaderCluster) throws(ColdframeError) -> HeaderCluster {
        let count = min(file.byteCount, UInt64(clusterByteCount))
        let present = HeaderSpace(
            try file.readMetadata(byteCount: Int(count), at: HostOffset(0), "qcow2 header"), old)
        var new = new
        new.extensions.endBridge()
        if (try? Arrangement(new, present, clusterByteCount)) == nil { new.extensions.setFeatureNames(false) }
        let wanted = try Arrangement(new, present, clusterByteCount)
        if let steps = wanted.steps(from: present) {
            try write(steps, present)
            return wanted.cluster
        }
        let ways = detours(wanted, present).compactMap { Way($0, new, present, clusterByteCount) }
        if let way = ways.first(where: { $0.rest != nil }) ?? ways.first {
            try write(way.steps, present)
            // All that is new is in force; what follows is for its looks.
            guard let rest = way.rest else { return way.cluster }
            do throws(ColdframeError) { try write(rest.steps, way.space) } catch { return way.cluster }
            return rest.cluster
        }
        try write([(0, wanted.bytes)], present)
        return wanted.cluster
    }

    /// Other arrangements of what is wanted. The name lies so that the wanted one can follow.
    private func detours(_ wanted: Arrangement, _ present: HeaderSpace) -> [Arrangement] {
        let headByteCount = wanted.cluster.headByteCount
        func arrange(_ change: (inout HeaderExtensions) -> Void) -> [Arrangement] {
            var cluster = wanted.cluster
            change(&cluster.extensions)
            return [headByteCount, 0].compactMap {
                try? Arrangement(cluster, present, clusterByteCount, nameFrom: $0)
            }
        }
        let fieldsByteCount = Int(wanted.cluster.header.headerByteCount)
        return arrange { $0.setFeatureNames(false) }
            + (present.openings(from: HeaderSpace.sectorByteCount) + [headByteCount]).flatMap { place in
                arrange { $0.bridge(to: place, headerByteCount: fieldsByteCount) }
            }
    }

    /// In order, each durable before the next; the last one is what switches. Before it nothing that is read has changed.
    private mutating func write(_ steps: [Arrangement.Step], _ present: HeaderSpace) throws(ColdframeError) {
        for (index, step) in steps.enumerated() {
            let isSwitch = index == steps.count - 1
            try file.ensureByteCount(UInt64(step.place + step.bytes.count))
            if isSwitch { owed = Array(present.bytes.prefix(step.bytes.count)) }
            try file.write(step.bytes, at: HostOffset(UInt64(step.place)))
            if isSwitch || index == steps.count - 2 { try file.flush() }
            if isSwitch { owed = nil }
        }
    }
}

/// A header in between, and what can be done behind it.
private struct Way {
    let cluster: HeaderCluster
    let steps: [Arrangement.Step]
    /// The first cluster after the steps.
    let space: HeaderSpace
    /// nil where the header in between stands in the way of the wanted one.
    private(set) var rest: (cluster: HeaderCluster, steps: [Arrangement.Step])?

    init?(_ between: Arrangement, _ new: HeaderCluster, _ present: HeaderSpace, _ clusterByteCount: Int) {
        guard let steps = between.steps(from: present) else { return nil }
        self.steps = steps
        cluster = between.cluster
        space = present.after(steps, cluster.header)
        guard let wanted = try? Arrangement(new, space, clusterByteCount), let rest = wanted.steps(from: space)
        else { return }
        self.rest = (wanted.cluster, rest)
    }
}

/// A header as it is to lie in the first cluster.
private struct Arrangement {
    typealias Step = (place: Int, bytes: [UInt8])

    /// The header's fields say where the name is.
    let cluster: HeaderCluster
    /// From the beginning to the end of fields, extensions and name.
    let bytes: [UInt8]
    private let space: HeaderSpace

    /// Chooses the name's place: where it is, or the first that is free, in the first sector or behind `nameFrom` and the extensions.
    init(
        _ new: HeaderCluster, _ present: HeaderSpace, _ clusterByteCount: Int, nameFrom: Int = 0
    ) throws(ColdframeError) {
        var cluster = new
        let name = new.nameBytes
        let sector = HeaderSpace.sectorByteCount
        let later = Self.later(new, present)
        let headByteCount = new.headByteCount
        var places = [headByteCount]
        if headByteCount + name.count > sector, !name.isEmpty {
            places = present.openings(from: max(sector, headByteCount, nameFrom))
            let there = Int(present.header.backingNameOffset)
            if there >= places[0], present.holds(name[...], at: there) { places.insert(there, at: 0) }
        }
        places.removeAll { $0 + name.count > clusterByteCount }
        let place = places.first { present.canTake(name[...], at: $0) || $0 < sector } ?? places.first
        guard let place else {
            throw ColdframeError(
                .invalidArgument, "Header and file names do not fit into a cluster of \(clusterByteCount) bytes")
        }
        let head = try cluster.encodeHead(later: later, nameOffset: place)
        bytes = head + (name.isEmpty ? [] : [UInt8](repeating: 0, count: place - head.count) + name)
        self.cluster = cluster
        space = HeaderSpace(bytes, cluster.header)
    }

    /// Fields of the old header that we do not know; a header of version 2 has none to give or to take.
    private static func later(_ new: HeaderCluster, _ present: HeaderSpace) -> ArraySlice<UInt8> {
        guard present.header.version >= 3, new.header.version >= 3 else { return [] }
        let count = present.bytes.count
        return present.bytes[
            min(Header.version3ByteCount, count)..<min(Int(present.header.headerByteCount), count)]
    }

    /// What to write, the first sector last; nil if something that the old header has is in the way.
    func steps(from present: HeaderSpace) -> [Step]? {
        let sector = HeaderSpace.sectorByteCount
        var steps: [Step] = []
        for range in space.occupied where range.upperBound > sector {
            let part = max(sector, range.lowerBound)..<range.upperBound
            guard present.canTake(bytes[part], at: part.lowerBound) else { return nil }
            if !present.holds(bytes[part], at: part.lowerBound) {
                steps.append((part.lowerBound, Array(bytes[part])))
            }
        }
        return steps + [(0, Array(bytes.prefix(sector)))]
    }
}
