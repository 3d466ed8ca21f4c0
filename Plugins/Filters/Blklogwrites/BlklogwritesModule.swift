import ColdframeKit

/// The filter `blklogwrites`.
public enum BlklogwritesModule {
    public static var module: Module {
        Module(name: "blklogwrites", schema: GeneratedSchema.fragment, blockDrivers: [BlklogwritesFactory()])
    }
}
