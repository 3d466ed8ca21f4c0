import ColdframeKit

/// The filter `preallocate`.
public enum PreallocateModule {
    public static var module: Module {
        Module(name: "preallocate", schema: GeneratedSchema.fragment, blockDrivers: [PreallocateFactory()])
    }
}
