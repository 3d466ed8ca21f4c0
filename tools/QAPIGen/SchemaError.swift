/// Where something stands in a schema file; lines count from 1.
struct Location: Equatable {
    var file: String
    var line: Int
}

/// What is wrong with a schema, where. Printed in the form that compilers use, so that the build shows it as an error.
struct SchemaError: Error, CustomStringConvertible {
    var location: Location
    var message: String

    init(_ location: Location, _ message: String) {
        self.location = location
        self.message = message
    }

    var description: String { "\(location.file):\(location.line): error: \(message)" }
}
