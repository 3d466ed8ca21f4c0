import QMPWire

/// The events of several monitors, which must all tell the same in the same order, each as far as it has been heard.
struct EventStreams {
    private var streams: [[JSONObject]]
    /// So many have been given out.
    private var knownCount = 0
    /// So many have been found equal in all.
    private var equalCount = 0
    private(set) var complaints: [String] = []

    init(count: Int) { streams = Array(repeating: [], count: count) }

    /// What has come from a monitor up to one of its answers.
    mutating func take(_ events: [JSONObject], from monitor: Int) {
        streams[monitor] += events
        while let first = streams[0].dropFirst(equalCount).first,
            streams.allSatisfy({ $0.count > equalCount }), complaints.isEmpty
        {
            for stream in streams.dropFirst() where stream[equalCount] != first {
                complaints.append("one monitor tells \(first), another \(stream[equalCount])")
            }
            equalCount += 1
        }
    }

    /// Those of a monitor that have not been given out.
    mutating func news(of monitor: Int) -> [JSONObject] {
        let news = Array(streams[monitor].dropFirst(knownCount))
        // Another one was told more already: behind an answer that is older than this one all must be here too.
        if streams[monitor].count < knownCount { complaints.append("monitor \(monitor) has missed an event") }
        knownCount = max(knownCount, streams[monitor].count)
        return news
    }
}
