import ColdframeKit
import LinuxSystem
import QAPI

/// The module of the store `directory`: a folder with a file for each state.
public enum DirectoryStoreModule {
    public static var module: Module {
        Module(
            name: "VMStateStores/Directory", schema: GeneratedSchema.fragment,
            vmStateStores: [DirectoryStoreFactory()])
    }
}

/// Opens folders.
struct DirectoryStoreFactory: VMStateStoreFactory {
    let driverName = "directory"

    func open(_ options: VMStateStoreOptions) async throws -> any VMStateStore {
        guard let branch = options.branch as? VMStateStoreOptionsDirectory else {
            throw ColdframeError(.invalidArgument, "Store 'directory' was given options of another store")
        }
        return try await BlockingPool.shared.run { try DirectoryStore(path: branch.path) }
    }
}
