import QMPWire

/// Which schema the agent speaks, and which agent it is.
public enum AgentVersion {
    /// QEMU's release whose schema this is: clients decide by it what they may use.
    public static let schema: (major: Int64, minor: Int64, micro: Int64) = (7, 2, 0)
    /// The agent's own.
    public static let package = "coldframe-0.1.0"

    static var json: JSONValue {
        QMPResponse.version(major: schema.major, minor: schema.minor, micro: schema.micro, package: package)
    }
}
