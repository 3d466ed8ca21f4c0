import QMPWire
import Synchronization

/// One branch of an open union, as a module's schema declares it.
public struct QAPIBranch: Sendable {
    public let union: String
    public let value: String
    /// The schema name of the branch's type.
    public let typeName: String
    let decode: @Sendable (inout QAPIObjectInput) throws(QMPError) -> any QAPIObjectValue

    public init<Value: QAPIObjectValue>(union: String, value: String, typeName: String, _ type: Value.Type) {
        self.union = union
        self.value = value
        self.typeName = typeName
        decode = { (input: inout QAPIObjectInput) throws(QMPError) in try Value(members: &input) }
    }
}

/// What one schema folder contributes: the core's, or a module's.
public struct SchemaFragment: Sendable {
    public let branches: [QAPIBranch]
    /// `SchemaInfo` objects as JSON text; the variants of open unions are added when all fragments are known.
    let introspection: String

    public init(branches: [QAPIBranch], introspection: String) {
        self.branches = branches
        self.introspection = introspection
    }
}

/// The branches of all open unions. Filled once, when the agent starts, from the fragments of its modules.
public enum BranchTable {
    private static let branches = Mutex<[String: [String: QAPIBranch]]>([:])

    /// Adds the branches of fragments. The core's own are there from the beginning.
    public static func install(_ fragments: [SchemaFragment]) {
        branches.withLock { table in
            for branch in ([CoreSchema.fragment] + fragments).flatMap(\.branches) {
                table[branch.union, default: [:]][branch.value] = branch
            }
        }
    }

    static func branch(of union: String, value: String) -> QAPIBranch? {
        branches.withLock { table in
            if table.isEmpty {
                for branch in CoreSchema.fragment.branches { table[branch.union, default: [:]][branch.value] = branch }
            }
            return table[union]?[value]
        }
    }
}
