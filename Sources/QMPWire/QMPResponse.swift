/// What a monitor sends.
public enum QMPResponse {
    public static func success(_ result: JSONValue, id: JSONValue?) -> JSONValue {
        var message: JSONObject = ["return": result]
        message["id"] = id
        return .object(message)
    }

    public static func failure(_ error: QMPError, id: JSONValue?) -> JSONValue {
        var message = JSONObject()
        message["id"] = id
        message["error"] = error.json
        return .object(message)
    }

    /// An event and the moment, since 1970, at which it happened.
    public static func event(
        _ name: String, data: JSONObject?, seconds: Int64, microseconds: Int64
    ) -> JSONValue {
        var message: JSONObject = [
            "timestamp": ["seconds": .integer(seconds), "microseconds": .integer(microseconds)],
            "event": .string(name),
        ]
        message["data"] = data.map(JSONValue.object)
        return .object(message)
    }

    /// The first message of a connection.
    public static func greeting(version: JSONValue, capabilities: [String]) -> JSONValue {
        ["QMP": ["version": version, "capabilities": .array(capabilities.map(JSONValue.string))]]
    }

    /// The value of `query-version` and of the greeting.
    public static func version(major: Int64, minor: Int64, micro: Int64, package: String) -> JSONValue {
        [
            "qemu": ["micro": .integer(micro), "minor": .integer(minor), "major": .integer(major)],
            "package": .string(package),
        ]
    }
}
