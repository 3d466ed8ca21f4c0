import QMPWire

/// A position in the input of a command: a value, and the way to it for error texts.
public struct QAPIInput: Sendable {
    public let value: JSONValue
    /// The member's own name; nil for an element of a list, which QEMU prints as `null`.
    let name: String?
    /// The whole way, as `actions[0].data.device`.
    let path: String
    /// Values come from a command line: everything is text.
    let isKeyval: Bool

    /// The root of the input. `keyval` says that the values come from a command line in dotted keys.
    public init(_ value: JSONValue, keyval: Bool = false) {
        self.init(value, name: nil, path: "", isKeyval: keyval)
    }

    private init(_ value: JSONValue, name: String?, path: String, isKeyval: Bool) {
        self.value = value
        self.name = name
        self.path = path
        self.isKeyval = isKeyval
    }

    func member(_ name: String, _ value: JSONValue) -> QAPIInput {
        QAPIInput(value, name: name, path: path.isEmpty ? name : "\(path).\(name)", isKeyval: isKeyval)
    }

    func element(_ index: Int, _ value: JSONValue) -> QAPIInput {
        let separator = isKeyval ? ".\(index)" : "[\(index)]"
        return QAPIInput(value, name: nil, path: path + separator, isKeyval: isKeyval)
    }

    // MARK: Errors, in QEMU's words

    /// The value has another type.
    func mismatch(expected: String) -> QMPError {
        QMPError(.genericError, "Invalid parameter type for '\(shownPath)', expected: \(expected)")
    }

    /// The value has none of an alternate's types.
    public func mismatchedAlternate(_ typeName: String) -> QMPError { mismatch(expected: typeName) }

    /// The value has the type but not a form that is accepted.
    func expects(_ what: String) -> QMPError {
        QMPError(.genericError, "Parameter '\(shownPath)' expects \(what)")
    }

    /// The value is not one of an enumeration. QEMU names the member without the way to it here.
    func refuse(_ text: String) -> QMPError {
        QMPError(.genericError, "Parameter '\(name ?? "null")' does not accept value '\(text)'")
    }

    private var shownPath: String { path.isEmpty ? "null" : path }
}

/// The members of an object that is being decoded; what nobody has taken at the end is unexpected.
public struct QAPIObjectInput {
    private let input: QAPIInput
    private let object: JSONObject
    private var taken: Set<String> = []

    public init(_ input: QAPIInput) throws(QMPError) {
        guard case .object(let object) = input.value else { throw input.mismatch(expected: "object") }
        self.input = input
        self.object = object
    }

    /// A member that must be there.
    public mutating func required<Value: QAPIValue>(_ name: String) throws(QMPError) -> Value {
        guard let value = take(name) else {
            throw QMPError(
                .genericError, "Parameter '\(input.path.isEmpty ? name : "\(input.path).\(name)")' is missing")
        }
        return try Value(value)
    }

    /// A member that may be left out.
    public mutating func optional<Value: QAPIValue>(_ name: String) throws(QMPError) -> Value? {
        guard let value = take(name) else { return nil }
        return try Value(value)
    }

    /// The branch of an open union: the members that `value` of the discriminator brings, beside the others or, if
    /// `wrapper` is given, inside that member.
    public mutating func branch(
        of union: String, discriminator: String, value: String, wrapper: String? = nil
    ) throws(QMPError) -> any QAPIObjectValue {
        guard let branch = BranchTable.branch(of: union, value: value) else {
            throw input.member(discriminator, .string(value)).refuse(value)
        }
        guard let wrapper else { return try branch.decode(&self) }
        guard let wrapped = take(wrapper) else {
            throw QMPError(
                .genericError, "Parameter '\(input.path.isEmpty ? wrapper : "\(input.path).\(wrapper)")' is missing")
        }
        var inner = try QAPIObjectInput(wrapped)
        let decoded = try branch.decode(&inner)
        try inner.finish()
        return decoded
    }

    /// Refuses what nobody has taken.
    public func finish() throws(QMPError) {
        for (name, _) in object where !taken.contains(name) {
            throw QMPError(
                .genericError, "Parameter '\(input.path.isEmpty ? name : "\(input.path).\(name)")' is unexpected")
        }
    }

    private mutating func take(_ name: String) -> QAPIInput? {
        guard let value = object[name] else { return nil }
        taken.insert(name)
        return input.member(name, value)
    }
}
