import QAPI
import QMPWire

/// What a module contributes for one value of `ObjectType`: something that nodes refer to by its id.
public protocol UserObjectFactory: Sendable {
    /// QAPI's `qom-type`.
    var typeName: String { get }
    /// Makes an object. `options.branch` is this module's generated branch type; only the module casts it.
    @AgentActor
    func make(_ options: ObjectOptions) throws -> any UserObject
}

/// An object that `object-add` has made. A driver that is opened finds it by `OpenContext.object`.
@AgentActor
public protocol UserObject: AnyObject, Sendable {
    nonisolated var id: String { get }
    /// Somebody refers to it: it cannot be deleted.
    var isInUse: Bool { get }
    /// What `object-add` would make it of as it is now.
    var options: ObjectOptions { get }
    /// A property's value; nil if there is no such property.
    func property(_ name: String) -> JSONValue?
    /// Sets a property. False if there is no such property; a throw changes nothing.
    func setProperty(_ name: String, _ value: QAPIInput) throws -> Bool
}
