import ColdframeKit

extension RawSidecarFactory: ImageChecking {
    /// `file` is the sidecar: the raw file is nothing that could be wrong.
    public func check(
        _ file: BlockNode, repair: ImageRepair, observer: any ImageCheckObserver
    ) throws(ColdframeError) -> ImageCheckResult {
        let report = try SidecarCheck.run(file, repairs: repair == .all) { observer.found($0) }
        var result = ImageCheckResult()
        result.corruptionCount = report.corruptionCount
        result.fixedCorruptionCount = report.fixedCorruptionCount
        result.allocatedClusterCount = report.comparedClusterCount
        return result
    }
}
