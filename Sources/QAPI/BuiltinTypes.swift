import QMPWire

// The types that QAPI has by itself. From a command line they are text in QEMU's forms.

extension String: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        guard case .string(let text) = input.value else { throw input.mismatch(expected: "string") }
        self = text
    }
    public var json: JSONValue { .string(self) }
}

extension Bool: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        switch input.value {
        case .bool(let value) where !input.isKeyval: self = value
        case .string("on") where input.isKeyval: self = true
        case .string("off") where input.isKeyval: self = false
        case .string where input.isKeyval: throw input.expects("'on' or 'off'")
        default: throw input.mismatch(expected: "boolean")
        }
    }
    public var json: JSONValue { .bool(self) }
}

extension Int64: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        switch input.value {
        case .integer(let value) where !input.isKeyval: self = value
        case .string(let text) where input.isKeyval:
            guard let value = Int64(text) else { throw input.expects("integer") }
            self = value
        default: throw input.mismatch(expected: "integer")
        }
    }
    public var json: JSONValue { .integer(self) }
}

extension UInt64: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        switch input.value {
        case .integer(let value) where !input.isKeyval && value >= 0: self = UInt64(value)
        case .unsigned(let value) where !input.isKeyval: self = value
        case .string(let text) where input.isKeyval:
            guard let value = UInt64.size(text) else { throw input.expects("a size value") }
            self = value
        default: throw input.mismatch(expected: "integer")
        }
    }
    public var json: JSONValue { Int64(exactly: self).map { .integer($0) } ?? .unsigned(self) }

    /// `10M` and the like: a number with a suffix of 1024's powers.
    private static func size(_ text: String) -> UInt64? {
        let suffixes = "BKMGTPE"
        guard let last = text.last else { return nil }
        let upper = Character(last.uppercased())
        guard let index = suffixes.firstIndex(of: upper) else { return UInt64(text) }
        guard let number = UInt64(text.dropLast()) else { return nil }
        let shift = 10 * suffixes.distance(from: suffixes.startIndex, to: index)
        let (product, overflow) = number.multipliedReportingOverflow(by: 1 << UInt64(shift))
        return overflow ? nil : product
    }
}

extension UInt32: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try narrow(input, "uint32_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension UInt16: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try narrow(input, "uint16_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

/// An integer that must fit a smaller type, which QEMU names as C does.
private func narrow<Value: FixedWidthInteger>(
    _ input: QAPIInput, _ typeName: String
) throws(QMPError) -> Value {
    guard let value = Value(exactly: try Int64(input)) else { throw input.expects(typeName) }
    return value
}

extension Double: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        switch input.value {
        case .double(let value): self = value
        case .integer(let value): self = Double(value)
        case .unsigned(let value): self = Double(value)
        default: throw input.mismatch(expected: "number")
        }
    }
    public var json: JSONValue { .double(self) }
}

extension JSONValue: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = input.value }
    public var json: JSONValue { self }
}

/// QAPI's `null`.
public struct JSONNull: QAPIValue, Equatable {
    public init() {}
    public init(_ input: QAPIInput) throws(QMPError) {
        guard case .null = input.value else { throw input.mismatch(expected: "null") }
    }
    public var json: JSONValue { .null }
}

extension Array: QAPIValue where Element: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        var elements: [JSONValue] = []
        switch input.value {
        case .array(let values): elements = values
        case .object(let object) where input.isKeyval:
            // On a command line a list is written as members 0, 1, 2 and so on.
            for index in 0..<object.count {
                guard let value = object["\(index)"] else { throw input.mismatch(expected: "array") }
                elements.append(value)
            }
        default: throw input.mismatch(expected: "array")
        }
        self = []
        reserveCapacity(elements.count)
        for (index, value) in elements.enumerated() { append(try Element(input.element(index, value))) }
    }
    public var json: JSONValue { .array(map(\.json)) }
}
