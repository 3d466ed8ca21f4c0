import ColdframeKit

/// What the agent writes into the annotation of every snapshot of a set: which set it belongs to, how many images the
/// set has, and, beside the state, the state's checksum.
///
/// Layout, little endian, 40 bytes: version (1), way (1), member count (2), UUID (16), state flag (1), reserved (3),
/// CRC32C of the state (4), reserved (4), state length (8).
struct SetRecord: Sendable, Equatable {
    /// How the state was captured; in the file as its raw value.
    enum Way: UInt8, Sendable {
        case disks = 0, live = 1, precopy = 2, paused = 3
    }

    /// The set's UUID, 16 bytes.
    var uuid: [UInt8]
    var memberCount: UInt16
    var way: Way
    /// Set on the member that holds the state, once the state is whole.
    var state: State?
    /// The set has a state, on one of its members.
    var hasState: Bool { way != .disks }

    struct State: Sendable, Equatable {
        var byteCount: UInt64
        var checksum: UInt32
    }

    static let byteCount = 40

    init(uuid: String, memberCount: Int, way: Way, state: State? = nil) {
        self.uuid = SetUUID.bytes(of: uuid)
        self.memberCount = UInt16(clamping: memberCount)
        self.way = way
        self.state = state
    }

    /// nil for annotations of strangers and of versions that are not known.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount, bytes[0] == 1, let way = Way(rawValue: bytes[1]) else { return nil }
        func number(_ range: Range<Int>) -> UInt64 {
            bytes[range].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        self.way = way
        memberCount = UInt16(number(2..<4))
        uuid = Array(bytes[4..<20])
        if bytes[20] == 1 {
            state = State(byteCount: number(32..<40), checksum: UInt32(number(24..<28)))
        }
    }

    var bytes: [UInt8] {
        func little(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
        return [1, way.rawValue] + little(UInt64(memberCount), 2) + uuid + [state == nil ? 0 : 1, 0, 0, 0]
            + little(UInt64(state?.checksum ?? 0), 4) + [0, 0, 0, 0] + little(state?.byteCount ?? 0, 8)
    }

    var uuidText: String { SetUUID.text(of: uuid) }
}

/// UUIDs between their text and their 16 bytes.
enum SetUUID {
    static func bytes(of text: String) -> [UInt8] {
        let digits = text.utf8.compactMap(\.hexDigit)
        var bytes = [UInt8](repeating: 0, count: 16)
        for index in 0..<min(16, digits.count / 2) { bytes[index] = digits[2 * index] << 4 | digits[2 * index + 1] }
        return bytes
    }

    static func text(of bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef")
        var text = ""
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text.append("-") }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return text
    }
}

extension UInt8 {
    fileprivate var hexDigit: UInt8? {
        switch self {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): self - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): self - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): self - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
