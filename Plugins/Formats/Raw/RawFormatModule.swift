import ColdframeKit

/// The module `raw`: a window on another node, byte for byte.
public enum RawFormatModule {
    public static var module: Module {
        Module(name: "raw", schema: GeneratedSchema.fragment, blockDrivers: [RawDriverFactory()])
    }
}
