import QMPWire

/// A value of a QAPI type: decoded strictly, with QEMU's error texts, and encoded as it goes over the wire.
public protocol QAPIValue: Sendable {
    /// Decodes. Throws class GenericError with the text that QEMU 7.2 has for the fault.
    init(_ input: QAPIInput) throws(QMPError)
    var json: JSONValue { get }
}

/// A QAPI struct or union: a JSON object whose members are known.
public protocol QAPIObjectValue: QAPIValue {
    /// Decodes the members of this type and leaves the others in `input`: a union decodes its branch from the same
    /// object.
    init(members input: inout QAPIObjectInput) throws(QMPError)
    func write(to object: inout JSONObject)
}

extension QAPIObjectValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        var members = try QAPIObjectInput(input)
        try self.init(members: &members)
        try members.finish()
    }

    public var json: JSONValue { .object(object) }

    /// The members as they go over the wire.
    public var object: JSONObject {
        var object = JSONObject()
        write(to: &object)
        return object
    }
}

/// A QAPI enum whose values are known when the schema is written.
public protocol QAPIEnum: QAPIValue, RawRepresentable, CaseIterable, Hashable where RawValue == String {}

extension QAPIEnum {
    public init(_ input: QAPIInput) throws(QMPError) {
        let text = try input.string()
        guard let value = Self(rawValue: text) else { throw input.doesNotAcceptValue(text) }
        self = value
    }

    public var json: JSONValue { .string(rawValue) }
}

/// A command of the schema.
public protocol QAPICommand: Sendable {
    associatedtype Arguments: QAPIValue
    associatedtype Result: QAPIValue
    /// Its name on the wire.
    static var name: String { get }
    /// Whether `exec-oob` may carry it out.
    static var allowsOutOfBand: Bool { get }
}

/// An event of the schema; `object` is its `data`.
public protocol QAPIEvent: QAPIObjectValue {
    /// Its name on the wire.
    static var name: String { get }
}

/// Arguments of a command that takes none, and the result of one that returns nothing: `{}`.
public struct QAPIEmpty: QAPIObjectValue, Equatable {
    public init() {}
    public init(members input: inout QAPIObjectInput) throws(QMPError) {}
    public func write(to object: inout JSONObject) {}
}

/// QAPI's type `null`.
public struct JSONNull: QAPIValue, Equatable {
    public init() {}
    public init(_ input: QAPIInput) throws(QMPError) {
        guard input.kind == .null else { throw input.hasWrongType("null") }
    }
    public var json: JSONValue { .null }
}

/// Holds a value of a type that contains itself.
public final class QAPIBox<Value: QAPIValue & Equatable>: QAPIValue, Equatable {
    public let value: Value

    public init(_ value: Value) { self.value = value }
    public init(_ input: QAPIInput) throws(QMPError) { value = try Value(input) }
    public var json: JSONValue { value.json }

    public static func == (left: QAPIBox, right: QAPIBox) -> Bool { left.value == right.value }
}
