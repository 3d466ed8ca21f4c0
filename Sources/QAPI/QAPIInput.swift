import QMPWire

/// A value that is being decoded, with its place in the whole input: errors name it as QEMU does.
public struct QAPIInput: Sendable {
    /// How scalars are written.
    public enum Notation: Sendable {
        /// JSON: numbers are numbers.
        case json
        /// `key=value,…` of a command line: every scalar is a string.
        case keyValue
    }

    /// Kinds of JSON values, by which an alternate chooses its branch.
    public enum Kind: Sendable {
        case null, bool, number, string, array, object
    }

    public let value: JSONValue
    /// The last component of the place; nil for the whole input and for an element of a list.
    public let name: String?
    /// The whole place, as `actions[0].data.name`; nil for the whole input.
    public let path: String?
    public let notation: Notation
    /// Branches of open unions.
    public let branches: BranchTable

    /// The whole of an input.
    public init(_ value: JSONValue, notation: Notation = .json, branches: BranchTable = .current) {
        self.value = value
        name = nil
        path = nil
        self.notation = notation
        self.branches = branches
    }

    private init(_ value: JSONValue, name: String?, path: String, in parent: QAPIInput) {
        self.value = value
        self.name = name
        self.path = path
        notation = parent.notation
        branches = parent.branches
    }

    public var kind: Kind {
        switch value {
        case .null: .null
        case .bool: .bool
        case .integer, .unsigned, .double: .number
        case .string: .string
        case .array: .array
        case .object: .object
        }
    }

    /// The path of a member of this object.
    func path(ofMember member: String) -> String { path.map { $0 + "." + member } ?? member }

    func member(_ name: String, _ value: JSONValue) -> QAPIInput {
        QAPIInput(value, name: name, path: path(ofMember: name), in: self)
    }

    /// The elements of a list, each with its place.
    public func elements() throws(QMPError) -> [QAPIInput] {
        guard case .array(let elements) = value else { throw hasWrongType("array") }
        let prefix = path ?? ""
        return elements.enumerated().map { index, element in
            let path = notation == .json ? "\(prefix)[\(index)]" : "\(prefix).\(index)"
            return QAPIInput(element, name: nil, path: path, in: self)
        }
    }

    // MARK: QEMU's texts. Some name the whole place, some its last component only.

    var fullName: String { path ?? "<anonymous>" }
    var leafName: String { name ?? "null" }

    public func hasWrongType(_ expected: String) -> QMPError {
        QMPError(.genericError, "Invalid parameter type for '\(fullName)', expected: \(expected)")
    }

    /// For alternates, where QEMU names the last component only.
    public func matchesNoBranch(of alternate: String) -> QMPError {
        QMPError(.genericError, "Invalid parameter type for '\(leafName)', expected: \(alternate)")
    }

    public func doesNotAcceptValue(_ text: String) -> QMPError {
        QMPError(.genericError, "Parameter '\(leafName)' does not accept value '\(text)'")
    }

    func expects(_ what: String) -> QMPError {
        QMPError(.genericError, "Parameter '\(fullName)' expects \(what)")
    }

    func leafExpects(_ what: String) -> QMPError {
        QMPError(.genericError, "Parameter '\(leafName)' expects \(what)")
    }
}

/// The members of one object while it is being decoded. What is left at the end was not expected.
public struct QAPIObjectInput: Sendable {
    private let input: QAPIInput
    private let object: JSONObject
    private var unvisited: Set<String>

    public init(_ input: QAPIInput) throws(QMPError) {
        guard case .object(let object) = input.value else { throw input.hasWrongType("object") }
        self.input = input
        self.object = object
        unvisited = Set(object.keys)
    }

    public mutating func required<Value: QAPIValue>(_ name: String) throws(QMPError) -> Value {
        try Value(try take(name))
    }

    public mutating func optional<Value: QAPIValue>(_ name: String) throws(QMPError) -> Value? {
        guard object[name] != nil else { return nil }
        return try Value(try take(name))
    }

    /// A member of type `size`, which a command line may give with a suffix.
    public mutating func requiredByteCount(_ name: String) throws(QMPError) -> UInt64 {
        try take(name).byteCount()
    }

    public mutating func optionalByteCount(_ name: String) throws(QMPError) -> UInt64? {
        guard object[name] != nil else { return nil }
        return try take(name).byteCount()
    }

    /// A member whose type is an open enum: one of the values that modules bring.
    public mutating func required(_ name: String, openEnum: String) throws(QMPError) -> String {
        let value = try take(name)
        let text = try value.string()
        guard input.branches.contains(text, in: openEnum) else { throw value.doesNotAcceptValue(text) }
        return text
    }

    public mutating func optional(_ name: String, openEnum: String) throws(QMPError) -> String? {
        guard object[name] != nil else { return nil }
        return try required(name, openEnum: openEnum)
    }

    /// Decodes the branch that `value` of the discriminator chooses in an open union: the members beside the others or,
    /// if the union has a `wrapper`, inside that member. A value that only other unions have brings no members.
    public mutating func branch(
        of union: String, value: String, wrapper: String? = nil
    ) throws(QMPError) -> any QAPIObjectValue {
        guard let type = input.branches.type(of: union, value: value) else { return QAPIEmpty() }
        guard let wrapper else { return try type.init(members: &self) }
        return try type.init(try take(wrapper))
    }

    /// Throws for the first member, in the order of the input, that nobody asked for.
    public func finish() throws(QMPError) {
        guard !unvisited.isEmpty, let name = object.keys.first(where: unvisited.contains) else { return }
        throw QMPError(.genericError, "Parameter '\(input.path(ofMember: name))' is unexpected")
    }

    private mutating func take(_ name: String) throws(QMPError) -> QAPIInput {
        guard let value = object[name] else {
            throw QMPError(.genericError, "Parameter '\(input.path(ofMember: name))' is missing")
        }
        unvisited.remove(name)
        return input.member(name, value)
    }
}
