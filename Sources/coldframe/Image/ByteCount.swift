import ArgumentParser

/// A number of bytes as people write it: `64k`, `1.5G`, `1048576`. Units are powers of 1024.
struct ByteCount: ExpressibleByArgument {
    let value: UInt64

    init(_ value: UInt64) { self.value = value }

    init?(argument: String) {
        guard let last = argument.last else { return nil }
        let units: [Character: UInt64] = ["b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60]
        let shift = units[Character(last.lowercased())]
        let digits = shift == nil ? argument : String(argument.dropLast())
        let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, let whole = UInt64(parts[0]) else { return nil }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: 1 << (shift ?? 0))
        guard !overflow else { return nil }
        guard parts.count == 2 else {
            value = scaled
            return
        }
        // A fraction of a unit, exact to a byte.
        guard let shift, shift > 0, parts[1].count <= 9, let fraction = UInt64(parts[1]) else { return nil }
        var divisor: UInt64 = 1
        for _ in parts[1] { divisor *= 10 }
        let product = fraction.multipliedFullWidth(by: 1 << shift)
        value = scaled &+ divisor.dividingFullWidth(product).quotient
    }
}
