import ColdframeKit
import LinuxSystem

/// The filter `throttle` and the objects `throttle-group`: limits that nodes share.
public enum ThrottleModule {
    public static var module: Module {
        Module(
            name: "throttle", schema: GeneratedSchema.fragment, blockDrivers: [ThrottleFactory()],
            objects: [ThrottleGroupFactory(clock: HostClock())])
    }
}
