import ColdframeKit
import LinuxSystem
import QMPWire

/// Passes events on that a guest can cause as often as it likes: of a kind, and of a node, one in a second (QEMU's rule). Of those that
/// come between, the last is sent when the second is over. Any thread; keeps one event for each kind and node.
final class LimitedEvents: Sendable {
    private struct Key: Hashable {
        let name: String
        let nodeName: String?
    }

    private struct Recent {
        /// The last that came since.
        var latest: JSONObject?
    }

    /// What was sent within the last second.
    private let recent = Locked<[Key: Recent]>([:])
    private let nanoseconds: UInt64
    private let send: @Sendable @AgentActor (_ name: String, _ data: JSONObject) -> Void

    init(
        nanoseconds: UInt64 = 1_000_000_000,
        post: @escaping @Sendable @AgentActor (_ name: String, _ data: JSONObject) -> Void
    ) {
        self.nanoseconds = nanoseconds
        send = post
    }

    @Sendable func post(_ name: String, _ data: JSONObject) {
        let key = Key(name: name, nodeName: data["node-name"]?.stringValue)
        let isFirst = recent.withLock { recent in
            let isFirst = recent[key] == nil
            recent[key] = Recent(latest: isFirst ? nil : data)
            return isFirst
        }
        guard isFirst else { return }
        Task { @AgentActor in
            var next: JSONObject? = data
            while let data = next {
                send(name, data)
                try? await Task.sleep(nanoseconds: nanoseconds)
                next = takeNext(key)
            }
        }
    }

    /// nil, and nothing is remembered of the kind, if none came.
    private func takeNext(_ key: Key) -> JSONObject? {
        recent.withLock { recent in
            let latest = recent[key]?.latest
            recent[key] = latest == nil ? nil : Recent()
            return latest
        }
    }
}
