import ColdframeKit

/// The filter `blkdebug`: faults by rules.
public enum BlkdebugModule {
    public static var module: Module {
        Module(name: "blkdebug", schema: GeneratedSchema.fragment, blockDrivers: [BlkdebugFactory()])
    }
}
