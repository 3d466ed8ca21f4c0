import ColdframeKit

/// The filters `copy-before-write` and `snapshot-access`: image fleecing.
public enum CopyBeforeWriteModule {
    public static var module: Module {
        Module(
            name: "copy-before-write", schema: GeneratedSchema.fragment,
            blockDrivers: [CopyBeforeWriteFactory(), SnapshotAccessFactory()])
    }
}
