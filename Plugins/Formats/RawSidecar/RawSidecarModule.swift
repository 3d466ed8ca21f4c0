import ColdframeKit

/// The module of raw images with a sidecar.
public enum RawSidecarFormatModule {
    public static var module: Module {
        Module(name: "Formats/RawSidecar", schema: GeneratedSchema.fragment, blockDrivers: [RawSidecarFactory()])
    }
}
