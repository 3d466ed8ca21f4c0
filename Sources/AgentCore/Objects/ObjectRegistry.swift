import ColdframeKit
import QAPI
import QMPWire

/// The objects that clients have made, by their ids.
@AgentActor
final class ObjectRegistry {
    private var objects: [any UserObject] = []
    private let factories: [String: any UserObjectFactory]

    init(factories: [any UserObjectFactory]) {
        self.factories = Dictionary(factories.map { ($0.typeName, $0) }, uniquingKeysWith: { first, _ in first })
    }

    func find(_ id: String) -> (any UserObject)? { objects.first { $0.id == id } }

    func isKind(_ typeName: String) -> Bool { factories[typeName] != nil }

    func add(_ options: ObjectOptions) throws {
        guard Identifier.isWellFormed(options.id) else {
            throw ColdframeError(.invalidArgument, "Parameter 'id' expects an identifier")
        }
        guard let factory = factories[options.qomType] else {
            throw ColdframeError(.unsupported, "invalid object type: \(options.qomType)")
        }
        let object = try factory.make(options)
        guard find(options.id) == nil else {
            throw ColdframeError(
                .alreadyExists, "attempt to add duplicate property '\(options.id)' to object (type 'container')")
        }
        objects.append(object)
    }

    func remove(_ id: String) throws {
        guard let object = find(id) else { throw ColdframeError(.notFound, "object '\(id)' not found") }
        guard !object.isInUse else {
            throw ColdframeError(.busy, "object '\(id)' is in use, can not be deleted")
        }
        objects.removeAll { $0 === object }
    }

    // MARK: Properties

    /// `/objects/ID`, or the end of it.
    func find(path: String) -> (any UserObject)? {
        for prefix in ["/objects/", "objects/"] where path.hasPrefix(prefix) {
            return find(String(path.dropFirst(prefix.count)))
        }
        return find(path)
    }

    private func require(path: String) throws -> any UserObject {
        guard let object = find(path: path) else {
            throw ColdframeError(.deviceNotFound, "Device '\(path)' not found")
        }
        return object
    }

    func property(_ name: String, of path: String) throws -> JSONValue {
        let object = try require(path: path)
        if name == "type" { return .string(object.options.qomType) }
        guard let value = object.property(name) else { throw Self.missing(name, object) }
        return value
    }

    /// Returns the object as it is to be made from now on, and what sets it back.
    func setProperty(
        _ name: String, of path: String, to value: JSONValue
    ) throws -> (object: any UserObject, before: JSONValue?) {
        let object = try require(path: path)
        guard name != "type" else {
            throw ColdframeError(
                .permission, "Property '\(object.options.qomType).type' is not writable")
        }
        let before = object.property(name)
        guard try object.setProperty(name, QAPIInput(value)) else { throw Self.missing(name, object) }
        return (object, before)
    }

    private static func missing(_ name: String, _ object: any UserObject) -> ColdframeError {
        ColdframeError(.notFound, "Property '\(object.options.qomType).\(name)' not found")
    }
}
