import ColdframeKit

/// What a command can ask of the monitor that it came by.
///
/// Events that a handler posts before it returns reach every client before its reply: both go through the connection's
/// one outgoing queue.
@AgentActor
public final class CommandContext {
    /// Of the command that the task carries out; nil outside of one.
    @TaskLocal public static var current: CommandContext?

    private var followUps: [@AgentActor () -> Void] = []
    /// Tasks that a handler started keep its context; what they ask for after the reply must not wait for another one.
    private var hasReplied = false

    nonisolated init() {}

    /// Runs `body` on the actor right after the reply was queued, in the order of the calls: for a command that
    /// answers first and works then. Without a command it runs at once.
    public static func afterReply(_ body: @escaping @AgentActor () -> Void) {
        if let current, !current.hasReplied { current.followUps.append(body) } else { body() }
    }

    func replied() {
        hasReplied = true
        let bodies = followUps
        followUps = []
        for body in bodies { body() }
    }
}
