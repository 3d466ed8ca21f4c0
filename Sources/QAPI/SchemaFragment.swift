/// The schema of one target, as generated: what the branch table and introspection are made of.
public struct SchemaFragment: Sendable {
    /// A branch of an open union.
    public struct Branch: Sendable {
        public let union: String
        /// The value of the discriminator.
        public let value: String
        /// The branch's type by its name in the schema.
        public let typeName: String
        public let type: any QAPIObjectValue.Type

        public init(union: String, value: String, typeName: String, type: any QAPIObjectValue.Type) {
            self.union = union
            self.value = value
            self.typeName = typeName
            self.type = type
        }
    }

    /// An open union and the enum of its discriminator.
    public struct OpenUnion: Sendable {
        public let union: String
        public let enumeration: String
        /// The member that holds what a branch brings; nil if that stands beside the others.
        public let wrapper: String?

        public init(union: String, enumeration: String, wrapper: String? = nil) {
            self.union = union
            self.enumeration = enumeration
            self.wrapper = wrapper
        }
    }

    /// A value that an open enum has without any branch.
    public struct OpenValue: Sendable {
        public let enumeration: String
        public let value: String

        public init(enumeration: String, value: String) {
            self.enumeration = enumeration
            self.value = value
        }
    }

    /// The target.
    public let name: String
    public let openUnions: [OpenUnion]
    public let openValues: [OpenValue]
    public let branches: [Branch]
    public let commands: [String]
    public let events: [String]
    /// An array of SchemaInfo objects in JSON with the schema's own type names; built-in types and arrays are left out,
    /// and so are the variants of open unions and the values of open enums.
    public let introspection: String

    public init(
        name: String, openUnions: [OpenUnion], openValues: [OpenValue], branches: [Branch], commands: [String],
        events: [String], introspection: String
    ) {
        self.name = name
        self.openUnions = openUnions
        self.openValues = openValues
        self.branches = branches
        self.commands = commands
        self.events = events
        self.introspection = introspection
    }

    /// That of a module that nothing on the wire names.
    public static let empty = SchemaFragment(
        name: "", openUnions: [], openValues: [], branches: [], commands: [], events: [], introspection: "[]")
}
