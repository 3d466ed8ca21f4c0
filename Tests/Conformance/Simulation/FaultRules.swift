import ColdframeKit
import LinuxSystem
import QMPWire

/// Random rules for `blkdebug` below a format: single requests that fail at the format's own steps, and spells in which all of
/// a kind do. Every spell ends by what the node meets in it, so that whoever tries again succeeds in the end.
struct FaultRules {
    private(set) var errors: [JSONValue] = []
    private(set) var changes: [JSONValue] = []

    /// How often something may have to be asked for until it succeeds.
    static let patience = 100
    /// What the module says of each failure.
    static let words = "was told to fail"

    private static let steps = [
        "l2_load", "l2_update", "l1_update", "refblock_load", "refblock_update", "refblock_alloc", "cluster_alloc",
        "cluster_free", "read_aio", "write_aio", "pwritev", "pwritev_zero", "flush_to_os",
    ]
    /// What every request passes one of.
    private static let everything = ["read_aio", "l2_load", "refblock_load", "pwritev", "pwritev_zero", "flush_to_os"]
    private static let kinds = ["read", "write", "write-zeroes", "discard", "flush"]

    init(_ chance: inout SplitMix) {
        for _ in 0..<chance.next(below: 5) { addSingle(&chance) }
        if chance.next(below: 2) == 0 { addSpells(&chance) }
    }

    private mutating func addSingle(_ chance: inout SplitMix) {
        var rule: JSONObject = [
            "event": .string(Self.pick(Self.steps, &chance)), "errno": Self.errno(&chance), "once": true,
        ]
        if chance.next(below: 3) == 0 { rule["iotype"] = .string(Self.pick(Self.kinds, &chance)) }
        if chance.next(below: 3) == 0 { rule["sector"] = .integer(Int64(chance.next(below: 2048))) }
        errors.append(.object(rule))
    }

    /// States 1 to `calm` follow one another at steps of one kind, then come those in which requests fail, one in which they
    /// no longer do, and 1 again.
    private mutating func addSpells(_ chance: inout SplitMix) {
        let (step, errno) = (Self.pick(Self.steps, &chance), Self.errno(&chance))
        let (calm, bad) = (chance.next(below: 12) + 1, chance.next(below: 4) + 1)
        for state in 1...calm { addChange(step, from: state, to: state + 1) }
        let last = calm + bad + 1
        for state in calm + 1...last {
            for event in Self.everything {
                addChange(event, from: state, to: state < last ? state + 1 : 1)
                addError(event, state, state < last ? errno : 0)
            }
        }
    }

    private mutating func addChange(_ event: String, from state: Int, to next: Int) {
        changes.append(
            .object([
                "event": .string(event), "state": .integer(Int64(state)), "new_state": .integer(Int64(next)),
            ]))
    }

    private mutating func addError(_ event: String, _ state: Int, _ errno: JSONValue) {
        errors.append(.object(["event": .string(event), "state": .integer(Int64(state)), "errno": errno]))
    }

    private static func pick(_ words: [String], _ chance: inout SplitMix) -> String {
        words[chance.next(below: words.count)]
    }

    private static func errno(_ chance: inout SplitMix) -> JSONValue {
        .integer(Int64(chance.next(below: 3) == 0 ? Errno.noSpace : Errno.io))
    }

    /// A file with these rules above it.
    func file(_ path: String) -> JSONValue {
        let file: JSONValue = ["driver": "file", "filename": .string(path)]
        guard !errors.isEmpty else { return file }
        return ["driver": "blkdebug", "image": file, "inject-error": .array(errors), "set-state": .array(changes)]
    }
}
