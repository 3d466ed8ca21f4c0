import ColdframeKit
import LinuxSystem
import QAPI
import QMPWire

/// Makes objects of the type `throttle-group`.
struct ThrottleGroupFactory: UserObjectFactory {
    let typeName = "throttle-group"
    let clock: any WaitClock

    func make(_ options: ObjectOptions) throws -> any UserObject {
        guard let properties = options.branch as? ThrottleGroupProperties else {
            throw ColdframeError(.invalidArgument, "An object 'throttle-group' was given options of another type")
        }
        return try ThrottleGroup(id: options.id, properties, clock: clock)
    }
}

/// Limits that nodes share.
final class ThrottleGroup: UserObject {
    let id: String
    /// What its nodes' requests go through.
    let queue: ThrottleQueue
    private var settings: ThrottleSettings

    init(id: String, _ properties: ThrottleGroupProperties, clock: any WaitClock) throws {
        self.id = id
        let members = properties.object
        var settings = ThrottleSettings()
        try settings.apply(members["limits"]?.objectValue ?? [:])
        try settings.apply(members, prefix: "x-")
        try settings.check()
        self.settings = settings
        queue = ThrottleQueue(settings, clock: clock)
    }

    var isInUse: Bool { queue.memberCount > 0 }

    var options: ObjectOptions {
        let object: JSONObject = [
            "qom-type": "throttle-group", "id": .string(id), "limits": .object(settings.limits),
        ]
        do { return try ObjectOptions(QAPIInput(.object(object))) } catch {
            preconditionFailure("limits that were read are no limits: \(error)")
        }
    }

    func property(_ name: String) -> JSONValue? {
        let limits = settings.limits
        if name == "limits" { return .object(limits) }
        return name.hasPrefix("x-") ? limits[String(name.dropFirst(2))] : nil
    }

    /// Limits change all at once only: in between they could contradict one another.
    func setProperty(_ name: String, _ value: QAPIInput) throws -> Bool {
        guard property(name) != nil else { return false }
        guard name == "limits" else {
            throw ColdframeError(.invalidArgument, "Property cannot be set after initialization")
        }
        // Errors name the property before its members.
        var members = try QAPIObjectInput(QAPIInput(.object([name: value.value])))
        let limits: ThrottleLimits = try members.required(name)
        var changed = settings
        try changed.apply(limits.object)
        try changed.check()
        settings = changed
        queue.set(changed)
        return true
    }
}
