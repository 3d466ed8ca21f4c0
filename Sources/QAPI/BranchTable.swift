import QMPWire
import Synchronization

/// What the branches of open unions are, collected from the core's schema and the modules'.
///
/// `coldframed` installs the fragments of its modules once, before anything is decoded. Installing adds: what is there
/// stays. Any thread.
public struct BranchTable: Sendable {
    private var types: [String: [String: any QAPIObjectValue.Type]] = [:]
    private var values: [String: [String]] = [:]
    private var enumerations: [String: String] = [:]

    /// The core's own and the given ones. An order of fragments in which a union's branches come before the union
    /// itself is allowed.
    public init(_ fragments: [SchemaFragment] = []) {
        add([CoreSchema.fragment] + fragments)
    }

    private mutating func add(_ fragments: [SchemaFragment]) {
        for fragment in fragments {
            for union in fragment.openUnions { enumerations[union.union] = union.enumeration }
            for value in fragment.openValues { add(value.value, to: value.enumeration) }
        }
        for branch in fragments.flatMap(\.branches) {
            types[branch.union, default: [:]][branch.value] = branch.type
            if let enumeration = enumerations[branch.union] { add(branch.value, to: enumeration) }
        }
    }

    private mutating func add(_ value: String, to enumeration: String) {
        if values[enumeration]?.contains(value) != true { values[enumeration, default: []].append(value) }
    }

    /// The type of the members that `value` of the discriminator brings, or nil if the union has no such branch.
    public func type(of union: String, value: String) -> (any QAPIObjectValue.Type)? { types[union]?[value] }

    /// Whether an open enum has the value.
    public func contains(_ value: String, in enumeration: String) -> Bool {
        values[enumeration]?.contains(value) ?? false
    }

    /// The values of an open enum.
    public func values(of enumeration: String) -> [String] { values[enumeration] ?? [] }

    // MARK: The one in use

    private static let installed = Mutex(BranchTable())

    /// The table that decoding uses unless told otherwise.
    public static var current: BranchTable { installed.withLock { $0 } }

    /// Adds the fragments to the table in use.
    public static func install(_ fragments: [SchemaFragment]) {
        installed.withLock { $0.add(fragments) }
    }
}
