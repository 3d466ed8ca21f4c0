import ColdframeKit

/// The driver `quorum`: one disk in several nodes.
public enum QuorumModule {
    public static var module: Module {
        Module(name: "quorum", schema: GeneratedSchema.fragment, blockDrivers: [QuorumFactory()])
    }
}
