import ColdframeKit

/// The driver `snapshot`: an internal snapshot as a node.
public enum SnapshotModule {
    public static var module: Module {
        Module(name: "snapshot", schema: GeneratedSchema.fragment, blockDrivers: [SnapshotFactory()])
    }
}
