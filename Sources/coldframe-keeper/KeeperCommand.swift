import LinuxSystem

/// `coldframe-keeper SOCKET`: the parent of one guest.
///
/// It outlives the agent: it is nobody's child and has a session of its own. It returns to its caller when the socket
/// listens, so that whoever started it can connect at once.
@main
struct KeeperCommand {
    static func main() {
        guard CommandLine.arguments.count == 2 else {
            fail("usage: coldframe-keeper SOCKET (the agent starts it)", code: 2)
        }
        do {
            let listener = try UnixSocket.listen(path: CommandLine.arguments[1], backlog: 1)
            if try ProcessControl.forkDetached() != nil { ProcessControl.exitImmediately(0) }
            var keeper = try Keeper(listener: listener, socketPath: CommandLine.arguments[1])
            try keeper.run()
        } catch {
            fail("\(error)", code: 1)
        }
    }

    private static func fail(_ text: String, code: Int32) -> Never {
        let line = Array("coldframe-keeper: \(text)\n".utf8)
        // Nobody is left to hear of a standard error that cannot be written.
        if let stream = try? ProcessControl.standardStream(2) {
            line.withUnsafeBytes { _ = try? stream.write($0) }
        }
        ProcessControl.exitImmediately(code)
    }
}
