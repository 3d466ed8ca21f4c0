import QMPWire

/// A value of a schema type: decoded strictly, with QEMU's error texts, and encoded again.
public protocol QAPIValue: Sendable {
    /// Decodes the value at a position of the input.
    init(_ input: QAPIInput) throws(QMPError)
    var json: JSONValue { get }
}

/// A value that is an object on the wire: a struct, a union, the arguments of a command.
///
/// Its members can be read from an object that holds others as well, as the branches of a union are.
public protocol QAPIObjectValue: QAPIValue {
    /// Takes its members, in schema order, from an object.
    init(members input: inout QAPIObjectInput) throws(QMPError)
    /// Adds its members, in schema order, to an object.
    func write(to object: inout JSONObject)
}

extension QAPIObjectValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        var object = try QAPIObjectInput(input)
        try self.init(members: &object)
        try object.finish()
    }

    public var json: JSONValue {
        var object = JSONObject()
        write(to: &object)
        return .object(object)
    }
}

/// No members: the arguments of a command that has none, and what a command returns that returns nothing.
public struct QAPIEmpty: QAPIObjectValue, Equatable {
    public init() {}
    public init(members input: inout QAPIObjectInput) throws(QMPError) {}
    public func write(to object: inout JSONObject) {}
}

/// A value of an enumeration.
public protocol QAPIEnum: QAPIValue, RawRepresentable, CaseIterable, Hashable where RawValue == String {}

extension QAPIEnum {
    public init(_ input: QAPIInput) throws(QMPError) {
        let text = try String(input)
        guard let value = Self(rawValue: text) else { throw input.refuse(text) }
        self = value
    }

    public var json: JSONValue { .string(rawValue) }
}

/// A command of the schema.
public protocol QAPICommand: Sendable {
    associatedtype Arguments: QAPIValue
    associatedtype Result: QAPIValue
    static var name: String { get }
    static var allowsOutOfBand: Bool { get }
}

/// What an event carries.
public protocol QAPIEvent: QAPIObjectValue {
    static var name: String { get }
}

/// Holds a value of a type that contains itself.
public final class QAPIBox<Value: QAPIValue>: QAPIValue {
    public let value: Value
    public init(_ value: Value) { self.value = value }
    public init(_ input: QAPIInput) throws(QMPError) { value = try Value(input) }
    public var json: JSONValue { value.json }
}
