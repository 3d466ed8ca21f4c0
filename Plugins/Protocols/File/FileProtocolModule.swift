import ColdframeKit

/// The module `file`: files and block devices of the host.
public enum FileProtocolModule {
    public static var module: Module {
        Module(name: "file", schema: GeneratedSchema.fragment, blockDrivers: [FileDriverFactory()])
    }
}
