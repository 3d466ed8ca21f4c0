/// Numbers as people read them.
enum Units {
    /// `1.5 GiB`, `512 B`.
    static func bytes(_ count: UInt64) -> String {
        let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var tenths = count &* 10
        var unit = 0
        if count > UInt64.max / 10 {
            tenths = count / 1024 * 10
            unit = 1
        }
        while tenths >= 10240, unit < names.count - 1 {
            tenths /= 1024
            unit += 1
        }
        let whole = tenths / 10
        return unit == 0 || whole >= 100 ? "\(whole) \(names[unit])" : "\(whole).\(tenths % 10) \(names[unit])"
    }

    /// `3.4 ms`, `12.5 s`, `4 min 10 s`.
    static func duration(nanoseconds: UInt64) -> String {
        switch nanoseconds {
        case ..<1_000_000: "\(nanoseconds / 1000) µs"
        case ..<1_000_000_000: tenths(nanoseconds / 100_000, "ms")
        case ..<100_000_000_000: tenths(nanoseconds / 100_000_000, "s")
        default: "\(nanoseconds / 60_000_000_000) min \(nanoseconds / 1_000_000_000 % 60) s"
        }
    }

    private static func tenths(_ value: UInt64, _ unit: String) -> String {
        "\(value / 10).\(value % 10) \(unit)"
    }

    /// A point in time as `2026-11-21 04:16:24` UTC.
    static func date(secondsSinceEpoch: Int64) -> String {
        let days = secondsSinceEpoch >= 0 ? secondsSinceEpoch / 86400 : (secondsSinceEpoch - 86399) / 86400
        let seconds = secondsSinceEpoch - days * 86400
        // Civil date from a day count: years begin in March, so that a leap day is the last of its year.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthIndex = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthIndex + 2) / 5 + 1
        let month = monthIndex < 10 ? monthIndex + 3 : monthIndex - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return "\(year)-\(two(month))-\(two(day)) \(two(seconds / 3600)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }

    private static func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
}
