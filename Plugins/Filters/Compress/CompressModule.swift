import ColdframeKit

/// The filter `compress`.
public enum CompressModule {
    public static var module: Module {
        Module(name: "compress", schema: GeneratedSchema.fragment, blockDrivers: [CompressFactory()])
    }
}
