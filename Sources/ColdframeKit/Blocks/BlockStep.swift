/// What a format is about to do with the node that its image lies in, by the names of `BlkdebugEvent`.
public enum BlockStep: String, Sendable {
    case readGuestData = "read_aio"
    case writeGuestData = "write_aio"
    case loadL2Table = "l2_load"
    case updateL1Table = "l1_update"
    case updateL2Table = "l2_update"
    case loadRefcountBlock = "refblock_load"
    case updateRefcountBlock = "refblock_update"
    case allocateRefcountBlock = "refblock_alloc"
    case allocateClusters = "cluster_alloc"
    case freeClusters = "cluster_free"
}

/// Is told of the steps of the format above it (`blkdebug`).
public protocol StepListening: BlockDriver {
    /// On the thread that takes the step, before it does. May block.
    func announced(_ step: BlockStep)
}
