import ColdframeKit

/// The filter `blkverify`: two nodes that must not differ.
public enum BlkverifyModule {
    public static var module: Module {
        Module(name: "blkverify", schema: GeneratedSchema.fragment, blockDrivers: [BlkverifyFactory()])
    }
}
