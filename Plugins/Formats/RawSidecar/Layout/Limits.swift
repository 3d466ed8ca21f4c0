/// What a sidecar may hold at most (docs/formats/raw-sidecar.md, "Limits"). Everything read from a file is checked
/// against these before memory is taken for it.
enum Limits {
    static let clusterBits: ClosedRange<UInt32> = 14...21
    static let defaultClusterByteCount: UInt64 = 64 << 10
    /// Of a record's payload.
    static let payloadByteCount = 64 << 10
    /// Clusters of one run in a record.
    static let runClusterCount = 8192
    static let snapshotCount = 4096
    /// Preserved clusters in all; each takes 16 bytes of memory.
    static let preservedCount = 1 << 24
    /// Of one state.
    static let stateClusterCount = 1 << 24
    /// Of a sidecar file; 32-bit cluster numbers.
    static let sidecarClusterCount: UInt64 = 1 << 32
    static let identifierByteCount = 64
    static let nameByteCount = 1023
    static let annotationByteCount = 512
    static let bitmapCount = 1024
    static let bitmapGranularities: ClosedRange<UInt32> = 512...(1 << 31)
    static let diskByteCount = UInt64(Int64.max)
}
