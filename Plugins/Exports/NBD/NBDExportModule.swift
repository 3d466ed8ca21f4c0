import ColdframeKit
import QAPI

/// The module of the NBD server: exports of type `nbd`, the commands of the public server, and private servers for the
/// disks of guests.
public enum NBDExportModule {
    /// A new value has a public server of its own.
    public static var module: Module {
        let server = PublicServer()
        return Module(
            name: "Exports/NBD", schema: GeneratedSchema.fragment, blockExports: [NBDExportFactory(server: server)],
            diskServer: GuestDiskServerFactory(),
            registerCommands: { registry, services in
                NBDCommands(server: server, services: services).register(registry)
            })
    }
}
