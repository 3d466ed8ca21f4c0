import ColdframeKit
import QAPI
import QMPWire

/// What a group lets pass: six rates, each for the requests of one kind. Read and set by the names of `ThrottleLimits`.
struct ThrottleSettings: Sendable, Equatable {
    /// What is counted, of which requests.
    enum Kind: Int, CaseIterable, Sendable {
        case operationsTotal, operationsRead, operationsWritten, bytesTotal, bytesRead, bytesWritten

        var name: String {
            switch self {
            case .operationsTotal: "iops-total"
            case .operationsRead: "iops-read"
            case .operationsWritten: "iops-write"
            case .bytesTotal: "bps-total"
            case .bytesRead: "bps-read"
            case .bytesWritten: "bps-write"
            }
        }
    }

    /// Units per second.
    struct Rate: Sendable, Equatable {
        /// Over a long time; 0 for no limit.
        var average: UInt64 = 0
        /// In a burst; 0 for none but a tenth of a second's worth.
        var burst: UInt64 = 0
        var burstSeconds: UInt64 = 1
    }

    private var rates = [Rate](repeating: Rate(), count: Kind.allCases.count)
    /// A larger request counts as several; 0 for one.
    private(set) var operationByteCount: UInt64 = 0

    subscript(kind: Kind) -> Rate { rates[kind.rawValue] }

    private static let highestRate: UInt64 = 1_000_000_000_000_000

    /// Sets the members of an object that are limits, under their names with a prefix before them. A throw leaves it half
    /// done; nothing is checked against anything else.
    mutating func apply(_ object: JSONObject, prefix: String = "") throws {
        func value(_ name: String) -> Int64? { object[prefix + name]?.intValue }
        for kind in Kind.allCases {
            if let average = value(kind.name) { rates[kind.rawValue].average = try Self.unsigned(average, prefix) }
            if let burst = value(kind.name + "-max") { rates[kind.rawValue].burst = try Self.unsigned(burst, prefix) }
            if let seconds = value(kind.name + "-max-length") {
                guard seconds <= UInt32.max else {
                    // The missing blank is QEMU's.
                    let words = prefix.isEmpty ? "in the range" : "in therange"
                    throw ColdframeError(
                        .invalidArgument,
                        "\(prefix)\(kind.name)-max-length value must be \(words) [0, \(UInt32.max)]")
                }
                rates[kind.rawValue].burstSeconds = UInt64(
                    UInt32(truncatingIfNeeded: try Self.unsigned(seconds, prefix)))
            }
        }
        if let byteCount = value("iops-size") { operationByteCount = try Self.unsigned(byteCount, prefix) }
    }

    /// Properties one by one must not be negative; in `limits` a negative number is a very large one, which is refused as such.
    private static func unsigned(_ value: Int64, _ prefix: String) throws -> UInt64 {
        guard value >= 0 || prefix.isEmpty else {
            throw ColdframeError(.invalidArgument, "Property values cannot be negative")
        }
        return UInt64(bitPattern: value)
    }

    /// Throws QEMU's text where limits contradict one another.
    func check() throws {
        func excludes(_ total: Kind, _ read: Kind, _ write: Kind, _ part: KeyPath<Rate, UInt64>) -> Bool {
            self[total][keyPath: part] > 0 && (self[read][keyPath: part] > 0 || self[write][keyPath: part] > 0)
        }
        for part in [\Rate.average, \Rate.burst] {
            if excludes(.bytesTotal, .bytesRead, .bytesWritten, part)
                || excludes(.operationsTotal, .operationsRead, .operationsWritten, part)
            {
                throw Self.error("bps/iops/max total values and read/write values cannot be used at the same time")
            }
        }
        let operations: [Kind] = [.operationsTotal, .operationsRead, .operationsWritten]
        if operationByteCount > 0, operations.allSatisfy({ self[$0].average == 0 }) {
            throw Self.error("iops size requires an iops value to be set")
        }
        // In QEMU's order of kinds, which decides what is said of several faults.
        for kind: Kind in [.bytesTotal, .bytesRead, .bytesWritten] + operations { try Self.check(self[kind]) }
    }

    private static func check(_ rate: Rate) throws {
        if rate.average > highestRate || rate.burst > highestRate {
            throw error("bps/iops/max values must be within [0, \(highestRate)]")
        }
        if rate.burstSeconds == 0 { throw error("the burst length cannot be 0") }
        if rate.burstSeconds > 1, rate.burst == 0 { throw error("burst length set without burst rate") }
        if rate.burst > 0 {
            if rate.burstSeconds > highestRate / rate.burst { throw error("burst length too high for this burst rate") }
            if rate.average == 0 { throw error("bps_max/iops_max require corresponding bps/iops values") }
            if rate.burst < rate.average { throw error("bps_max/iops_max cannot be lower than bps/iops") }
        }
    }

    private static func error(_ text: String) -> ColdframeError { ColdframeError(.invalidArgument, text) }

    /// All of them, as `ThrottleLimits` on the wire.
    var limits: JSONObject {
        var object = JSONObject()
        for kind in Kind.allCases {
            object[kind.name] = .integer(Int64(clamping: self[kind].average))
            object[kind.name + "-max"] = .integer(Int64(clamping: self[kind].burst))
            object[kind.name + "-max-length"] = .integer(Int64(clamping: self[kind].burstSeconds))
        }
        object["iops-size"] = .integer(Int64(clamping: operationByteCount))
        return object
    }
}
