/// One JSON value (RFC 8259) as QMP uses it: 64-bit integers stay exact, objects keep the order of their members.
///
/// Strings are compared byte for byte, not by Unicode equivalence, as every other JSON peer does.
public enum JSONValue: Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    /// Only values above `Int64.max`; smaller ones are `.integer`. `init(_:)` chooses.
    case unsigned(UInt64)
    /// Finite: JSON has no spelling for infinities and NaN.
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// An integer of any width, exact where 64 bits suffice.
    public init<Value: BinaryInteger>(_ value: Value) {
        if let value = Int64(exactly: value) {
            self = .integer(value)
        } else if let value = UInt64(exactly: value) {
            self = .unsigned(value)
        } else {
            self = .double(Double(value))
        }
    }

    public init(_ value: String) { self = .string(value) }
    public init(_ value: Bool) { self = .bool(value) }
    public init(_ value: JSONObject) { self = .object(value) }
    public init(_ value: [JSONValue]) { self = .array(value) }

    public var isNull: Bool {
        if case .null = self { true } else { false }
    }
    public var boolValue: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }
    /// The value of an integer that fits; nil for doubles, also for whole ones.
    public var intValue: Int64? {
        if case .integer(let value) = self { value } else { nil }
    }
    /// The value of a non-negative integer; nil for doubles.
    public var uint64Value: UInt64? {
        switch self {
        case .integer(let value): UInt64(exactly: value)
        case .unsigned(let value): value
        default: nil
        }
    }
    /// The value of any number; integers beyond 53 bits lose precision.
    public var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .unsigned(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }
    public var stringValue: String? {
        if case .string(let value) = self { value } else { nil }
    }
    public var arrayValue: [JSONValue]? {
        if case .array(let value) = self { value } else { nil }
    }
    public var objectValue: JSONObject? {
        if case .object(let value) = self { value } else { nil }
    }

    /// The member of an object; nil for a missing one and for anything that is no object.
    public subscript(key: String) -> JSONValue? { objectValue?[key] }
}

extension JSONValue: Equatable {
    /// Objects are equal whatever the order of their members; integers and doubles are never equal.
    public static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let left), .bool(let right)): left == right
        case (.integer(let left), .integer(let right)): left == right
        case (.unsigned(let left), .unsigned(let right)): left == right
        case (.double(let left), .double(let right)): left == right
        case (.string(let left), .string(let right)): ExactString(left) == ExactString(right)
        case (.array(let left), .array(let right)): left == right
        case (.object(let left), .object(let right)): left == right
        default: false
        }
    }
}

extension JSONValue: ExpressibleByNilLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByStringInterpolation, ExpressibleByArrayLiteral,
    ExpressibleByDictionaryLiteral
{
    public init(nilLiteral: ()) { self = .null }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(stringLiteral value: String) { self = .string(value) }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(JSONObject(members: elements))
    }
}

extension JSONValue: CustomStringConvertible {
    /// The compact JSON text.
    public var description: String { JSONWriter.string(self) }
}
