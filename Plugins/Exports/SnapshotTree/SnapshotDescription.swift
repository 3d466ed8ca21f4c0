import ColdframeKit
import QMPWire

/// The text of `info.json`: what people and scripts want to know of a snapshot, with QAPI's names for what QAPI has.
///
/// It says nothing that changes while the snapshot stays as it is (who has it open), so that it can be cached for good.
enum SnapshotDescription {
    static func json(
        of set: SnapshotSet, diskFiles: [(member: SnapshotSet.Member, path: String)], agentName: String?
    ) -> [UInt8] {
        var object = JSONObject()
        object["tag"] = .string(set.tag)
        if let uuid = set.uuid { object["uuid"] = .string(uuid) }
        if let agentName { object["agent"] = .string(agentName) }
        object["complete"] = .bool(set.isComplete)
        object["mixed"] = .bool(set.isMixed)
        if let member = set.vmStateMember ?? set.members.first {
            let snapshot = member.snapshot
            object["date"] = .string(date(snapshot.treeDate))
            object["date-sec"] = JSONValue(snapshot.dateSeconds)
            object["date-nsec"] = JSONValue(snapshot.dateNanoseconds)
            object["guest"] = .object([
                "vm-clock-sec": JSONValue(snapshot.guestClockNanoseconds / 1_000_000_000),
                "vm-clock-nsec": JSONValue(snapshot.guestClockNanoseconds % 1_000_000_000),
            ])
        }
        if let member = set.vmStateMember {
            object["state"] = .object([
                "file": .string(TreeBuilder.vmStateName), "node-name": .string(member.nodeName),
                "size": JSONValue(member.snapshot.vmStateByteCount),
            ])
        } else {
            object["state"] = .null
        }
        object["nodes"] = .array(diskFiles.map { .object(node($0.member, path: $0.path)) })
        var bytes: [UInt8] = []
        JSONWriter.pretty(.object(object), into: &bytes)
        bytes.append(UInt8(ascii: "\n"))
        return bytes
    }

    private static func node(_ member: SnapshotSet.Member, path: String) -> JSONObject {
        let snapshot = member.snapshot
        var object: JSONObject = [
            "node-name": .string(member.nodeName), "file": .string(path), "size": JSONValue(snapshot.diskByteCount),
            "id": .string(snapshot.id), "date": .string(date(snapshot.treeDate)),
            "vm-state-size": JSONValue(snapshot.vmStateByteCount),
        ]
        if let icount = snapshot.icount { object["icount"] = JSONValue(icount) }
        return object
    }

    /// ISO 8601 in UTC, by the days of the Gregorian calendar counted from 1 March of the year 0.
    static func date(_ date: TreeDate) -> String {
        let days = (date.seconds - ((date.seconds % 86400) + 86400) % 86400) / 86400
        let second = date.seconds - days * 86400
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        let year = yearOfEra + era * 400 + (month >= 10 ? 1 : 0)
        let clock = "\(padded(second / 3600)):\(padded(second / 60 % 60)):\(padded(second % 60))"
        return "\(padded(year, 4))-\(padded(month < 10 ? month + 3 : month - 9))-\(padded(day))T\(clock)Z"
    }

    private static func padded(_ value: Int64, _ width: Int = 2) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
    }
}
