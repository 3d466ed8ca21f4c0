import KeeperWire
import LinuxSystem

/// The connection to the agent: whole messages in, whole messages out.
struct AgentConnection {
    let socket: Descriptor
    private var buffer = KeeperFrameBuffer()
    /// Descriptors that came and whose message is not whole yet, in order.
    private var descriptors: [Descriptor] = []

    init(socket: Descriptor) {
        self.socket = socket
    }

    /// Reads once. Nil: the agent has closed the connection.
    mutating func receive(
        into scratch: UnsafeMutableRawBufferPointer
    ) throws -> [(KeeperRequest, Descriptor?)]? {
        let (count, arrived) = try socket.receiveWithDescriptors(into: scratch, maxDescriptors: 4)
        guard count > 0 else { return nil }
        descriptors += arrived
        buffer.append(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
        var messages: [(KeeperRequest, Descriptor?)] = []
        while let (kind, body) = try buffer.next() {
            let request = try KeeperRequest(kind: kind, body: body)
            switch request {
            case .holdCapture, .adopt:
                messages.append((request, descriptors.isEmpty ? nil : descriptors.removeFirst()))
            default: messages.append((request, nil))
            }
        }
        return messages
    }

    func send(_ reply: KeeperReply) throws {
        try socket.sendAllWithDescriptors(reply.frame, [])
    }
}
