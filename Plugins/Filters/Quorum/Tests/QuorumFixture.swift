import ColdframeKit
import ConformanceKit
import LinuxSystem
import Logging
import QAPI
import QMPWire

@testable import QuorumFilter

/// Disks in memory under a quorum, and what it tells.
final class QuorumFixture: Sendable {
    let files: [MemoryFile]
    private let events = Locked<[(name: String, data: JSONObject)]>([])

    /// - Parameter contents: a letter for each child, of which its 4 KiB consist.
    init(_ contents: String, byteCount: Int = 4096) {
        files = contents.utf8.map { letter in
            let file = MemoryFile()
            file.replace(with: [UInt8](repeating: letter, count: byteCount))
            return file
        }
    }

    /// Each event in a few words: `bad n1 read 0+8`, with the error; `failure read…`.
    var told: [String] {
        events.withLock { events in
            defer { events = [] }
            return events.map { name, data in
                let place = "\(data["sector-num"]?.intValue ?? -1)+\(data["sectors-count"]?.intValue ?? -1)"
                guard name == "QUORUM_REPORT_BAD" else {
                    return "\(data["reference"]?.stringValue ?? "?") failed \(place)"
                }
                let words = [data["node-name"], data["type"]].compactMap { $0?.stringValue } + [place]
                return (words + [data["error"]].compactMap { $0?.stringValue }).joined(separator: " ")
            }
        }
    }

    /// - Parameters:
    ///   - worthNanoseconds: with 0 all children are asked at once.
    ///   - wrap: what stands between the quorum and a file; nil for nothing.
    func open(
        _ options: JSONObject = [:], threshold: Int, isReadOnly: Bool = false,
        worthNanoseconds: UInt64 = QuorumPace.worthNanoseconds,
        wrap: (Int, MemoryFile) -> HookedDriver? = { _, _ in nil }
    ) throws -> QuorumDriver {
        var members = options
        members["vote-threshold"] = JSONValue(UInt64(threshold))
        members["children"] = .array(files.indices.map { .string("n\($0)") })
        let settings = try QuorumSettings(try BlockdevOptionsQuorum(QAPIInput(.object(members))))
        let children = files.enumerated().map { index, file in
            QuorumChild(
                name: "children.\(index)", node: BlockNode(name: "n\(index)", driver: wrap(index, file) ?? file))
        }
        return QuorumDriver(
            children: children, settings: settings, isReadOnly: isReadOnly,
            reports: QuorumReports(
                nodeName: "q", post: { name, data in self.events.withLock { $0.append((name, data)) } },
                log: LimitedLog(Logger(label: "q") { _ in SwiftLogNoOpLogHandler() })),
            worthNanoseconds: worthNanoseconds)
    }

    /// What is read, as the letter of which it consists, or the errno.
    static func letter(_ driver: QuorumDriver, _ offset: UInt64 = 0, _ count: Int = 4096) -> String {
        do {
            let bytes = try driver.readBytes(offset, count)
            return bytes.allSatisfy { $0 == bytes[0] } ? String(decoding: [bytes[0]], as: UTF8.self) : "mixed"
        } catch {
            return "\(ColdframeError(wrapping: error).errno)"
        }
    }

    /// The first letters of the files.
    var letters: String { String(decoding: files.map { $0.bytes[0] }, as: UTF8.self) }
}

/// Fails requests of the kinds that it is told to, with an errno.
final class Fault: Sendable {
    private let kinds = Locked<[HookedDriver.Request]>([])
    let errno: Int32

    init(_ kinds: HookedDriver.Request..., errno: Int32 = 5) {
        self.errno = errno
        set(kinds)
    }

    func set(_ kinds: [HookedDriver.Request]) { self.kinds.withLock { $0 = kinds } }

    func above(_ file: MemoryFile) -> HookedDriver {
        HookedDriver(file) { (request, _) throws(ColdframeError) in
            if self.kinds.withLock({ $0.contains(request) }) {
                throw ColdframeError(.io, "told to fail", errno: self.errno)
            }
        }
    }
}
