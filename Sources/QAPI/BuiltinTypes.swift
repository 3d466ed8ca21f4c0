import QMPWire

extension QAPIInput {
    /// The text of a scalar in a command line.
    func keyValueText() throws(QMPError) -> String {
        switch value {
        case .string(let text): return text
        case .object, .array: throw QMPError(.genericError, "Parameters '\(fullName).*' are unexpected")
        default: throw QMPError(.genericError, "Internal error: parameter \(fullName) invalid")
        }
    }

    public func string() throws(QMPError) -> String {
        if notation == .keyValue { return try keyValueText() }
        guard case .string(let text) = value else { throw hasWrongType("string") }
        return text
    }

    /// `int` and `int64`.
    func signedInteger() throws(QMPError) -> Int64 {
        if notation == .keyValue {
            guard let number = ScalarText.signedInteger(try keyValueText()) else { throw expects("integer") }
            return number
        }
        guard case .integer(let number) = value else { throw hasWrongType("integer") }
        return number
    }

    /// `uint64`. Negative numbers wrap around, as QEMU lets them.
    func unsignedInteger() throws(QMPError) -> UInt64 {
        if notation == .keyValue {
            guard let number = ScalarText.unsignedInteger(try keyValueText()) else { throw expects("integer") }
            return number
        }
        switch value {
        case .integer(let number): return UInt64(bitPattern: number)
        case .unsigned(let number): return number
        default: throw expects("uint64")
        }
    }

    /// `size`.
    func byteCount() throws(QMPError) -> UInt64 {
        guard notation == .keyValue else { return try unsignedInteger() }
        guard let count = ScalarText.byteCount(try keyValueText()) else { throw expects("size") }
        return count
    }

    func narrow<Narrow: FixedWidthInteger>(_ name: String) throws(QMPError) -> Narrow {
        let number = Narrow.isSigned ? Narrow(exactly: try signedInteger()) : Narrow(exactly: try unsignedInteger())
        guard let number else { throw leafExpects(name) }
        return number
    }
}

extension String: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.string() }
    public var json: JSONValue { .string(self) }
}

extension Bool: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        if input.notation == .keyValue {
            guard let value = ScalarText.bool(try input.keyValueText()) else { throw input.expects("'on' or 'off'") }
            self = value
            return
        }
        guard case .bool(let value) = input.value else { throw input.hasWrongType("boolean") }
        self = value
    }
    public var json: JSONValue { .bool(self) }
}

extension Double: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        if input.notation == .keyValue {
            guard let number = ScalarText.number(try input.keyValueText()) else { throw input.hasWrongType("number") }
            self = number
            return
        }
        switch input.value {
        case .integer(let number): self = Double(number)
        case .unsigned(let number): self = Double(number)
        case .double(let number): self = number
        default: throw input.hasWrongType("number")
        }
    }
    public var json: JSONValue { .double(self) }
}

extension Int64: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.signedInteger() }
    public var json: JSONValue { .integer(self) }
}

extension UInt64: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.unsignedInteger() }
    public var json: JSONValue { JSONValue(self) }
}

extension Int8: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("int8_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension Int16: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("int16_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension Int32: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("int32_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension UInt8: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("uint8_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension UInt16: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("uint16_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension UInt32: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = try input.narrow("uint32_t") }
    public var json: JSONValue { .integer(Int64(self)) }
}

extension Array: QAPIValue where Element: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) {
        self = []
        for element in try input.elements() { append(try Element(element)) }
    }
    public var json: JSONValue { .array(map(\.json)) }
}

/// QAPI's type `any`.
extension JSONValue: QAPIValue {
    public init(_ input: QAPIInput) throws(QMPError) { self = input.value }
    public var json: JSONValue { self }
}
