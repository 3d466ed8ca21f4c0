import LinuxSystem

/// The last values that were made, a fixed number of them: tables and unpacked clusters that readers go through in small
/// steps. Any thread; a value is made outside the lock, by two threads at once if both want it first.
public final class RecentValues<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private struct State {
        var values: [Key: Value] = [:]
        /// In the order in which they came; the place of the oldest is `next` once it is full.
        var keys: [Key] = []
        var next = 0
    }
    private let state = Locked(State())
    private let limit: Int

    /// - Parameter limit: how many values are kept, at least 1.
    public init(limit: Int) { self.limit = max(1, limit) }

    public func value(
        for key: Key, make: () throws(ColdframeError) -> Value
    ) throws(ColdframeError) -> Value {
        if let known = state.withLock({ $0.values[key] }) { return known }
        let made = try make()
        state.withLock { state in
            guard state.values.updateValue(made, forKey: key) == nil else { return }
            if state.keys.count < limit {
                state.keys.append(key)
            } else {
                state.values[state.keys[state.next]] = nil
                state.keys[state.next] = key
                state.next = (state.next + 1) % limit
            }
        }
        return made
    }
}
