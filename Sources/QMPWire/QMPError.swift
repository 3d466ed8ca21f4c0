/// An error as it stands on the wire: a class, by which clients decide, and a text.
public struct QMPError: Error, Sendable, Equatable, CustomStringConvertible {
    /// QEMU's error classes. Everything new is `genericError`; the others exist because clients probe for them.
    public enum ErrorClass: String, Sendable, CaseIterable {
        case genericError = "GenericError"
        case commandNotFound = "CommandNotFound"
        case deviceNotActive = "DeviceNotActive"
        case deviceNotFound = "DeviceNotFound"
        case kvmMissingCap = "KVMMissingCap"
    }

    public let errorClass: ErrorClass
    /// The member `desc`.
    public let description: String

    public init(_ errorClass: ErrorClass, _ description: String) {
        self.errorClass = errorClass
        self.description = description
    }

    /// The member `error` of a reply; nil if it is none. An unknown class is read as `genericError`.
    public init?(json: JSONValue) {
        guard let description = json["desc"]?.stringValue else { return nil }
        self.init(json["class"]?.stringValue.flatMap(ErrorClass.init(rawValue:)) ?? .genericError, description)
    }

    /// The member `error` of a reply.
    public var json: JSONValue {
        ["class": .string(errorClass.rawValue), "desc": .string(description)]
    }
}
