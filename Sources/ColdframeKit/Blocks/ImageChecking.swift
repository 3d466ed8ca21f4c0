/// What a check of an image found: `qemu-img`'s `ImageCheck`.
public struct ImageCheckResult: Sendable, Equatable {
    /// Places that could not be looked at.
    public var checkErrorCount: UInt64 = 0
    /// Things that are wrong and endanger data, still there when the check ended.
    public var corruptionCount: UInt64 = 0
    /// Space that is taken and used by nothing, still there when the check ended.
    public var leakCount: UInt64 = 0
    public var fixedCorruptionCount: UInt64 = 0
    public var fixedLeakCount: UInt64 = 0
    /// Clusters of the virtual disk; of those that are allocated, not in a row with the one before, compressed.
    public var totalClusterCount: UInt64 = 0
    public var allocatedClusterCount: UInt64 = 0
    public var fragmentedClusterCount: UInt64 = 0
    public var compressedClusterCount: UInt64 = 0
    /// First byte behind what the image uses of its file.
    public var imageEndOffset: UInt64 = 0

    public init() {}
}

/// What a check may change.
public enum ImageRepair: Sendable {
    case nothing
    /// Gives back what is taken and used by nothing. Safe on any image.
    case leaks
    /// Makes the bookkeeping say what the tables reach.
    case all
}

/// Whoever waits for a check.
public protocol ImageCheckObserver: AnyObject, Sendable {
    /// One finding, in a sentence.
    func found(_ finding: String)
    /// `done` of `total` pieces of work. Throws to end the check.
    func progressed(done: UInt64, total: UInt64) throws(ColdframeError)
}

/// A format that can prove an image's bookkeeping, and mend it. The image is no node meanwhile.
public protocol ImageChecking: BlockDriverFactory {
    /// Checks the image in `file`, which is writable if `repair` is to change something. Blocks. A crash during a repair
    /// leaves an image that is no worse than before.
    func check(
        _ file: BlockNode, repair: ImageRepair, observer: any ImageCheckObserver
    ) throws(ColdframeError) -> ImageCheckResult
}
