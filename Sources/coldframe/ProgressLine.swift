import LinuxSystem

/// Shows how far a job is: a bar that redraws itself on a terminal, a plain line now and then elsewhere.
struct ProgressLine {
    private let isTerminal: Bool
    private let title: String
    private let start = SystemClock.monotonicNanoseconds()
    private var lastDrawn: UInt64
    private var isDrawn = false
    /// What was left when a total was first known.
    private var first: (time: UInt64, remaining: UInt64)?
    private static let barWidth: UInt64 = 24

    init(title: String) {
        lastDrawn = start
        self.title = title
        isTerminal = Terminal.isErrorTerminal
        // A short job leaves no line in a log.
        lastDrawn = isTerminal ? 0 : start
    }

    /// For work that is counted in steps.
    mutating func update(steps done: UInt64, of total: UInt64) {
        let now = SystemClock.monotonicNanoseconds()
        guard isTerminal, now - lastDrawn >= 100_000_000, total > 0 else { return }
        lastDrawn = now
        isDrawn = true
        Terminal.writeError("\r\u{1B}[K\(title) \(done * 100 / total) %")
    }

    /// `current` and `total` in bytes.
    mutating func update(current: UInt64, total: UInt64) {
        let now = SystemClock.monotonicNanoseconds()
        let remaining = total > current ? total - current : 0
        // A job that only begins says 1.
        if first == nil, total > 1 { first = (now, remaining) }
        // A terminal gets ten pictures a second, a log one line every five seconds.
        guard now - lastDrawn >= (isTerminal ? 100_000_000 : 5_000_000_000) else { return }
        lastDrawn = now
        let line = text(current: current, total: total, left: timeLeft(remaining, now), elapsed: now - start)
        if isTerminal {
            Terminal.writeError("\r\u{1B}[K" + line)
            isDrawn = true
        } else {
            Terminal.writeError(line + "\n")
        }
    }

    /// Removes the bar.
    mutating func clear() {
        if isDrawn { Terminal.writeError("\r\u{1B}[K") }
        isDrawn = false
    }

    /// Nanoseconds, by how fast what remains becomes less: of a guest's RAM much takes no room, so that bytes come slowly
    /// and what remains shrinks fast.
    private func timeLeft(_ remaining: UInt64, _ now: UInt64) -> UInt64? {
        guard let first, remaining > 0, first.remaining > remaining else { return nil }
        let left = Double(remaining) / Double(first.remaining - remaining) * Double(now - first.time)
        // Whatever an agent says, the number can be shown.
        return UInt64(min(left, 1e18))
    }

    private func text(current: UInt64, total: UInt64, left: UInt64?, elapsed: UInt64) -> String {
        let rate = elapsed > 0 ? Double(current) / Double(elapsed) * 1e9 : 0
        var line = title
        if total > 1 {
            let filled = min(Self.barWidth, UInt64(Double(current) / Double(total) * Double(Self.barWidth)))
            if isTerminal {
                line +=
                    " [" + String(repeating: "#", count: Int(filled))
                    + String(repeating: " ", count: Int(Self.barWidth - filled)) + "]"
            }
            line += " \(min(100, UInt64(Double(current) / Double(total) * 100))) %"
        }
        line += "  \(Units.bytes(current))" + (total > 1 ? " of \(Units.bytes(max(current, total)))" : "")
        if rate > 0 {
            line += "  \(Units.bytes(UInt64(rate)))/s"
            if let left { line += "  \(Units.duration(nanoseconds: left)) left" }
        }
        return line
    }
}
