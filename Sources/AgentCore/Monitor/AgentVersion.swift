import QMPWire

/// Which schema the agent speaks, and which agent it is.
public enum AgentVersion {
    /// QEMU's release whose schema this is: clients decide by it what they may use.
    public static let schema: (major: Int64, minor: Int64, micro: Int64) = (7, 2, 0)
    /// The agent's own.
    public static let text = "0.1.0"
    /// The same as QMP's greeting has it.
    public static let package = "coldframe-\(text)"

    static var json: JSONValue {
        QMPResponse.version(major: schema.major, minor: schema.minor, micro: schema.micro, package: package)
    }
}
