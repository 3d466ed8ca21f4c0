/// The manual.
enum Reference {
    static func write(_ schema: Schema, owners: [String]) -> String { "" }
}
