import ColdframeKit

/// The filter `copy-on-read`.
public enum CopyOnReadModule {
    public static var module: Module {
        Module(name: "copy-on-read", schema: GeneratedSchema.fragment, blockDrivers: [CopyOnReadFactory()])
    }
}
