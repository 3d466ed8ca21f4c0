import ColdframeKit

/// Checks and mends images that are not open.
public enum Qcow2Check {
    /// As `ImageChecking.check`.
    public static func run(
        on file: BlockNode, repair: ImageRepair, observer: any ImageCheckObserver
    ) throws(ColdframeError) -> ImageCheckResult {
        let image = try Qcow2Image.read(file)
        let check = try pass(image, observer)
        switch repair {
        case .nothing: return check.result
        case .leaks:
            guard check.result.leakCount > 0 else { return check.result }
            try mendLeaks(check)
        case .all:
            let isMarked = !image.header.incompatible.isDisjoint(with: [.dirty, .corrupt])
            guard check.result.leakCount > 0 || check.result.corruptionCount > 0 || isMarked else {
                return check.result
            }
            try mendAll(check)
        }
        var after = try pass(Qcow2Image.read(file), Silent(observer)).result
        after.fixedLeakCount = check.result.leakCount - min(after.leakCount, check.result.leakCount)
        after.fixedCorruptionCount =
            check.result.corruptionCount - min(after.corruptionCount, check.result.corruptionCount)
        return after
    }

    /// One look at all of the image.
    static func pass(
        _ image: Qcow2Image, _ observer: any ImageCheckObserver
    ) throws(ColdframeError) -> ImageCheck {
        var check = ImageCheck(image, observer: observer)
        try check.countReferences()
        do {
            let refcounts = try refcounts(of: image)
            try check.compareRefcounts(refcounts)
            check.checkFlags(refcounts)
        } catch {
            check.corruption("the refcounts can't be read: \(error.message)", isMendable: true)
            check.checkFlags(nil)
        }
        return check
    }

    private static func refcounts(of image: Qcow2Image) throws(ColdframeError) -> RefcountTable {
        try RefcountTable(
            file: image.file, geometry: image.header.geometry, header: image.header, cacheByteLimit: 8 << 20)
    }

    /// Lowers refcounts that are too high, in place: whatever the rest of the image is like, nothing refers to what
    /// becomes free.
    private static func mendLeaks(_ check: ImageCheck) throws(ColdframeError) {
        let refcounts = try refcounts(of: check.image)
        let geometry = check.geometry
        // On a damaged image no flag is set, so what would need one keeps its leak.
        let isSound = check.result.corruptionCount == 0
        let kept = isSound ? [] : Set(check.wrongFlags.filter { $0.word & EntryBits.copied != 0 }.map(\.cluster))
        var cluster: UInt64 = 0
        while cluster < check.counts.clusterCount {
            let end = min(
                check.counts.clusterCount,
                (cluster / geometry.refcountBlockEntryCount + 1) * geometry.refcountBlockEntryCount)
            let run = ClusterRun(first: cluster, count: end - cluster)
            cluster = end
            guard let block = try? refcounts.block(run.first / geometry.refcountBlockEntryCount) else { continue }
            let base = run.first / geometry.refcountBlockEntryCount * geometry.refcountBlockEntryCount
            let leaks = (run.first..<run.end).contains { block[Int($0 - base)] > check.counts[$0] }
            if leaks { try refcounts.set(run) { kept.contains($0) ? $1 : min($1, check.counts[$0]) } }
        }
        try check.file.flush()
        // Who has become the only one gets its flag.
        if isSound { try setFlags(check, where: { $0 & EntryBits.copied != 0 }) }
    }

    /// Flags that allow too much go before the refcounts change, those that allow too little after it.
    private static func mendAll(_ check: ImageCheck) throws(ColdframeError) {
        guard check.result.checkErrorCount == 0 else {
            throw ColdframeError(
                .corrupt,
                "The image can't be repaired: not all of it can be read, so it is unknown what it uses. "
                    + "Copy what can be read with 'coldframe image convert'")
        }
        try setFlags(check, where: { $0 & EntryBits.copied == 0 })
        var rebuilding = RefcountRebuilding(check)
        let isWhole = check.unmendableCount == 0
        try rebuilding.run(check.image.header) { header in
            header.incompatible.remove(.dirty)
            if isWhole { header.incompatible.remove(.corrupt) }
        }
        try setFlags(check, where: { $0 & EntryBits.copied != 0 })
    }

    private static func setFlags(
        _ check: ImageCheck, where isWanted: (UInt64) -> Bool
    ) throws(ColdframeError) {
        for wrong in check.wrongFlags where isWanted(wrong.word) {
            try check.file.writeWords([wrong.word], at: wrong.place)
        }
        try check.file.flush()
    }

    /// The second pass finds again what could not be mended; it has been told already.
    private final class Silent: ImageCheckObserver {
        private let inner: any ImageCheckObserver
        init(_ inner: any ImageCheckObserver) { self.inner = inner }
        func found(_ finding: String) {}
        func progressed(done: UInt64, total: UInt64) throws(ColdframeError) {
            try inner.progressed(done: done, total: total)
        }
    }
}

extension Qcow2Factory: ImageChecking {
    public func check(
        _ file: BlockNode, repair: ImageRepair, observer: any ImageCheckObserver
    ) throws(ColdframeError) -> ImageCheckResult {
        try Qcow2Check.run(on: file, repair: repair, observer: observer)
    }
}
