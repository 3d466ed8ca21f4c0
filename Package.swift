// swift-tools-version: 6.1
import PackageDescription

// The house is described in ARCHITECTURE.md: arrows run one way, from the executables at the bottom of this file
// to CLinux at its top. A module under Plugins/ is one `module(...)` line here and one line in
// Sources/coldframed/Modules.swift or, for what opens images, Sources/BlockModules/BlockModules.swift.

/// A target whose wire types are generated from the QAPI files in its `schema/` folder.
func schemaTarget(_ name: String, _ dependencies: [Target.Dependency], path: String? = nil) -> Target {
    .target(
        name: name, dependencies: dependencies, path: path,
        exclude: path == nil ? ["schema", "README.md"] : ["schema", "Tests", "README.md"],
        swiftSettings: name == "Qcow2Format" ? fuzzedSettings : [],
        plugins: [.plugin(name: "QAPIGenPlugin")])
}

/// A module of the agent and its tests: one folder with code, schema, tests and a page. Guest filesystems have no options,
/// hence no schema.
func module(_ name: String, path: String, _ dependencies: [Target.Dependency] = []) -> [Target] {
    let own: [Target.Dependency] = ["ColdframeKit", "QAPI", "LinuxSystem"] + dependencies
    return [
        path.hasPrefix("Plugins/GuestFilesystems")
            ? .target(name: name, dependencies: own, path: path, exclude: ["Tests", "README.md"])
            : schemaTarget(name, own, path: path),
        .testTarget(
            name: name + "Tests",
            dependencies: [.byName(name: name), "ColdframeKit", "ConformanceKit"] + dependencies
                + (neededByTests[name] ?? []),
            path: path + "/Tests"),
    ]
}

/// What a module's tests need beside the module.
let neededByTests: [String: [Target.Dependency]] = [
    "QEMUGuest": ["NBDExport", "coldframe-keeper"], "Qcow2Format": ["Qcow2Fuzzing"],
]

/// What `tools/fuzz` builds has the marks by which libFuzzer sees which code an input reaches.
let fuzzedSettings: [SwiftSetting] =
    Context.environment["COLDFRAME_FUZZ"] == nil ? [] : [.unsafeFlags(["-sanitize=fuzzer,address"])]

let modules: [(name: String, path: String, dependencies: [Target.Dependency])] = [
    ("FileProtocol", "Plugins/Protocols/File", []),
    ("NullProtocol", "Plugins/Protocols/Null", ["QMPWire"]),
    ("RawFormat", "Plugins/Formats/Raw", []),
    ("Qcow2Format", "Plugins/Formats/Qcow2", ["CChecksum", "CZlib", "CZstd"]),
    ("RawSidecarFormat", "Plugins/Formats/RawSidecar", ["CChecksum", "QMPWire"]),
    ("VdiFormat", "Plugins/Formats/Vdi", []),
    ("VpcFormat", "Plugins/Formats/Vpc", []),
    ("VmdkFormat", "Plugins/Formats/Vmdk", ["CZlib", "QMPWire"]),
    ("CompressFilter", "Plugins/Filters/Compress", ["BlockCopying"]),
    ("CopyBeforeWriteFilter", "Plugins/Filters/CopyBeforeWrite", ["BlockCopying"]),
    ("CopyOnReadFilter", "Plugins/Filters/CopyOnRead", ["BlockCopying"]),
    ("PreallocateFilter", "Plugins/Filters/Preallocate", []),
    ("BlklogwritesFilter", "Plugins/Filters/Blklogwrites", ["QMPWire"]),
    ("BlkverifyFilter", "Plugins/Filters/Blkverify", ["BlockCopying"]),
    ("QuorumFilter", "Plugins/Filters/Quorum", ["BlockCopying", "QMPWire"]),
    ("BlkdebugFilter", "Plugins/Filters/Blkdebug", ["QMPWire"]),
    ("SnapshotFilter", "Plugins/Filters/Snapshot", []),
    ("ThrottleFilter", "Plugins/Filters/Throttle", ["QMPWire"]),
    ("FatFilesystem", "Plugins/GuestFilesystems/Fat", []),
    ("DirectoryStore", "Plugins/VMStateStores/Directory", ["CChecksum"]),
    ("NBDExport", "Plugins/Exports/NBD", []),
    ("SnapshotTreeExport", "Plugins/Exports/SnapshotTree", ["CFuse3"]),
    ("QEMUGuest", "Plugins/Guests/QEMU", ["QMPWire", "QMPClient", "KeeperWire"]),
]

/// Those that open images, which `coldframe image` has as well as the agent.
let blockModules: [Target.Dependency] = modules.filter { module in
    !["Exports", "Guests", "VMStateStores"].contains { module.path.hasPrefix("Plugins/\($0)/") }
}.map { .byName(name: $0.name) }

let package = Package(
    name: "coldframe",
    products: [
        .executable(name: "coldframed", targets: ["coldframed"]),
        .executable(name: "coldframe", targets: ["coldframe"]),
        .executable(name: "coldframe-keeper", targets: ["coldframe-keeper"]),
        // Linked with libFuzzer by tools/fuzz.
        .library(name: "Qcow2Fuzzing", type: .static, targets: ["Qcow2Fuzzing"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    ],
    targets: [
        // C: one wrapper per thing that Swift cannot reach.
        .target(name: "CLinux"),
        .target(name: "CChecksum"),
        .target(name: "CToml", linkerSettings: [.linkedLibrary("stdc++")]),
        .systemLibrary(name: "CFuse3", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

        // The wire.
        .target(name: "LinuxSystem", dependencies: ["CLinux"]),
        .target(name: "QMPWire"),
        schemaTarget("QAPI", ["QMPWire"]),
        .target(name: "QMPClient", dependencies: ["QMPWire", "LinuxSystem"]),
        .target(name: "KeeperWire", dependencies: ["LinuxSystem"]),

        // The agent.
        .target(
            name: "ColdframeKit",
            dependencies: ["QAPI", "QMPWire", "LinuxSystem", .product(name: "Logging", package: "swift-log")]),
        .target(
            name: "BlockCopying", dependencies: ["ColdframeKit", "LinuxSystem"], exclude: ["README.md"]),
        .target(
            name: "AgentCore",
            dependencies: ["ColdframeKit", "BlockCopying", "QAPI", "QMPWire", "LinuxSystem", "CChecksum"]),
        .target(name: "ImageTools", dependencies: ["ColdframeKit", "LinuxSystem"]),
        .target(name: "BlockModules", dependencies: ["ColdframeKit"] + blockModules),
        .executableTarget(
            name: "coldframed",
            dependencies: ["AgentCore", "BlockModules", "CToml", .product(name: "Logging", package: "swift-log")]
                + modules.map { .byName(name: $0.name) }),
        .executableTarget(
            name: "coldframe",
            dependencies: [
                "QMPClient", "QMPWire", "LinuxSystem", "AgentCore", "BlockModules", "ColdframeKit", "ImageTools",
                "QAPI", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
        .executableTarget(name: "coldframe-keeper", dependencies: ["KeeperWire", "LinuxSystem"]),

        // Tools of the build.
        .executableTarget(name: "QAPIGen", path: "tools/QAPIGen"),
        .plugin(
            name: "QAPIGenPlugin", capability: .buildTool(), dependencies: ["QAPIGen"], path: "tools/QAPIGenPlugin"),

        // Tests. A module's own stand in its folder.
        .target(name: "ConformanceKit", dependencies: ["ColdframeKit", "LinuxSystem"], path: "Tests/ConformanceKit"),
        .target(
            name: "Qcow2Fuzzing", dependencies: ["Qcow2Format", "ColdframeKit", "LinuxSystem"],
            path: "Tests/Fuzz/Qcow2Fuzzing", swiftSettings: fuzzedSettings),
        .testTarget(name: "LinuxSystemTests", dependencies: ["LinuxSystem", "CChecksum"]),
        .testTarget(name: "QMPWireTests", dependencies: ["QMPWire"]),
        .testTarget(name: "QAPITests", dependencies: ["QAPI", "QMPWire", "QAPIGen"]),
        .testTarget(name: "QMPClientTests", dependencies: ["QMPClient"]),
        .testTarget(
            name: "AgentCoreTests",
            dependencies: ["AgentCore", "ConformanceKit", "FileProtocol", "Qcow2Format"]),
        .testTarget(name: "ImageToolsTests", dependencies: ["ImageTools", "ConformanceKit"]),
        .testTarget(name: "ColdframedTests", dependencies: ["coldframed"]),
        .testTarget(
            name: "ConformanceTests",
            dependencies: ["coldframed", "AgentCore", "ConformanceKit", "FileProtocol", "Qcow2Format"],
            path: "Tests/Conformance"),
        .testTarget(name: "ColdframeTests", dependencies: ["coldframe"]),
    ] + modules.flatMap { module($0.name, path: $0.path, $0.dependencies) },
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx20
)
