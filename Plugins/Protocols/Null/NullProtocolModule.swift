import ColdframeKit

/// The drivers `null-co` and `null-aio`: a disk that keeps nothing. They are the same here.
public enum NullProtocolModule {
    public static var module: Module {
        Module(
            name: "null", schema: GeneratedSchema.fragment,
            blockDrivers: [NullFactory(driverName: "null-co"), NullFactory(driverName: "null-aio")])
    }
}
