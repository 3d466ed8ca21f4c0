import CChecksum
import ColdframeKit
import LinuxSystem
import QMPWire

/// The intent journal: append-only, checksummed, on stable storage before what it announces is done.
///
/// A record is a header of 16 bytes (magic, length, CRC32C of the payload, zero; little endian) and a payload of JSON:
/// `{"step": "begin"|"cut"|"lost"|"committed"|"cleared", …intent}`. A torn tail ends the journal; what follows it was never
/// acted on. When nothing is pending the file is cut back to nothing.
///
/// Thread rules: any thread; calls block on the disk.
final class Journal: Sendable {
    enum Step: String, Sendable {
        /// The operation is going to touch these images.
        case begin
        /// A save: these snapshots exist now and belong to the operation. A load: the disks are wound back, and the state is
        /// about to be fed to the guest.
        case cut
        /// A load: the guest's memory is of no moment any more. The disks go back, and the guest stays stopped.
        case lost
        /// The operation is whole: recovery goes forward from here.
        case committed
        /// Nothing is left to do.
        case cleared
    }

    private typealias Pending = [String: (step: Step, intent: Intent)]

    private let file: Descriptor
    /// Where the next record goes; held while it is written.
    private let end: Locked<UInt64>
    /// Apart from `end`, so that whoever looks does not wait for the disk.
    private let current: Locked<Pending>
    /// What an earlier agent left.
    private let inheritedUUIDs: Set<String>

    private static let magic: UInt32 = 0x4A46_4331  // "1CFJ"
    private static let payloadLimit = 1 << 20
    private static let fileLimit = 64 << 20

    /// Opens or makes the journal and reads what is pending.
    init(path: String) throws(ColdframeError) {
        do {
            file = try Descriptor.open(path, [.readWrite, .create], mode: 0o600)
        } catch {
            throw ColdframeError(error, "Could not open the intent journal '\(path)'")
        }
        do {
            // Its name must be as durable as what will stand in it.
            try Files.synchronizeDirectory(Files.parentDirectory(of: path))
        } catch {
            throw ColdframeError(error, "Could not make the intent journal '\(path)' durable")
        }
        let bytes: [UInt8]
        do {
            bytes = try Files.readAll(path, limit: Self.fileLimit)
        } catch {
            throw ColdframeError(error, "Could not read the intent journal '\(path)'")
        }
        let replayed = Self.replay(bytes)
        do {
            // A torn tail goes, so that no stale record can follow the next one.
            if replayed.end < UInt64(bytes.count) { try file.truncate(toByteCount: replayed.end) }
        } catch {
            throw ColdframeError(error, "Could not cut the torn end of the intent journal '\(path)'")
        }
        end = Locked(replayed.end)
        current = Locked(replayed.pending)
        inheritedUUIDs = Set(replayed.pending.keys)
    }

    /// Pending intents of an earlier agent: nobody is at work on them.
    var interrupted: [(step: Step, intent: Intent)] {
        pending.filter { inheritedUUIDs.contains($0.intent.uuid) }
    }

    /// Intents that were begun and not cleared, with the last step each reached.
    var pending: [(step: Step, intent: Intent)] {
        current.withLock { pending in pending.values.sorted { $0.intent.uuid < $1.intent.uuid } }
    }

    /// Records a step; it is on stable storage when this returns. `cleared` takes the intent off the pending ones even
    /// if it cannot be written: what stays in the file then is looked at, and found done, at the next start.
    func record(_ step: Step, _ intent: Intent) throws(ColdframeError) {
        var object = intent.json
        object["step"] = .string(step.rawValue)
        var payload: [UInt8] = []
        JSONWriter.compact(.object(object), into: &payload)
        // Whoever reads it back would take a longer one for the journal's end.
        guard payload.count <= Self.payloadLimit || step == .cleared else {
            throw ColdframeError(
                .invalidArgument,
                "The intent needs \(payload.count) bytes in the journal, which takes \(Self.payloadLimit) at most: name "
                    + "fewer nodes at a time")
        }
        let record = Self.header(for: payload) + payload
        do {
            try end.withLock { end in
                if step == .cleared { current.withLock { $0[intent.uuid] = nil } }
                try record.withUnsafeBytes { try file.pwriteAll($0, at: end) }
                try file.synchronizeData()
                end += UInt64(record.count)
                let isEmpty = current.withLock { pending in
                    if step != .cleared { pending[intent.uuid] = (step, intent) }
                    return pending.isEmpty
                }
                // A journal that cannot be cut grows until it can.
                if isEmpty, (try? file.truncate(toByteCount: 0)) != nil { end = 0 }
            }
        } catch {
            throw ColdframeError(wrapping: error).prefixed("Could not write the intent journal")
        }
    }

    private static func header(for payload: [UInt8]) -> [UInt8] {
        let checksum = payload.withUnsafeBytes { cf_crc32c(0, $0.baseAddress, $0.count) }
        return [magic, UInt32(payload.count), checksum, 0].flatMap { word in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
        }
    }

    private static func replay(_ bytes: [UInt8]) -> (end: UInt64, pending: Pending) {
        func word(_ offset: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * $1) }
        }
        var pending: Pending = [:]
        var offset = 0
        while bytes.count - offset >= 16, word(offset) == magic {
            let length = Int(word(offset + 4))
            guard length <= payloadLimit, length <= bytes.count - offset - 16 else { break }
            let payload = bytes[(offset + 16)..<(offset + 16 + length)]
            let checksum = payload.withUnsafeBytes { cf_crc32c(0, $0.baseAddress, $0.count) }
            guard checksum == word(offset + 8),
                let json = try? JSONParser.parse(String(decoding: payload, as: UTF8.self)),
                let step = json["step"]?.stringValue.flatMap(Step.init(rawValue:)), let intent = Intent(json: json)
            else { break }
            pending[intent.uuid] = step == .cleared ? nil : (step, intent)
            offset += 16 + length
        }
        return (UInt64(offset), pending)
    }
}
