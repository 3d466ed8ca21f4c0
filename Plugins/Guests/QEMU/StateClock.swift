import ColdframeKit

/// The guest's clock in a state, which QEMU keeps in the section `timer` (`cpu_ticks_offset`, eight unused bytes,
/// `cpu_clock_offset`: what the clock has counted while the vCPUs ran, since they stand still when it is stored).
///
/// The sections of devices follow the RAM. They have no lengths, so that one is found only by what it begins with; what
/// must follow it keeps memory that happens to look like a section from being taken for one.
enum StateClock {
    private static let fullSection: UInt8 = 0x04
    private static let subsection: UInt8 = 0x05
    private static let footer: UInt8 = 0x7e
    /// Length and name, instance 0, version 2.
    private static let name: [UInt8] = [5] + Array("timer".utf8) + [0, 0, 0, 0] + [0, 0, 0, 2]
    private static let contentByteCount = 24

    /// Nanoseconds, of the last such section in `tail`; nil if there is none.
    static func nanoseconds(inStateTail tail: [UInt8]) -> UInt64? {
        // Type and number of the section stand before its name, the content and a footer or subsection behind it.
        let shortest = 5 + name.count + contentByteCount + 1
        guard tail.count >= shortest else { return nil }
        return tail.withUnsafeBytes { tail in
            for start in stride(from: tail.count - shortest, through: 0, by: -1) {
                guard tail[start] == fullSection, tail[start + 6..<start + 5 + name.count].elementsEqual(name[1...]),
                    tail[start + 5] == name[0]
                else { continue }
                let content = start + 5 + name.count
                let end = content + contentByteCount
                guard isEnd(tail[end...], ofSection: tail[start + 1..<start + 5]) else { continue }
                let clock = tail.bigEndian(UInt64.self, at: content + 16)
                // It is a signed number.
                return clock >> 63 == 0 ? clock : nil
            }
            return nil
        }
    }

    /// A subsection (`icount`) or the footer, which repeats the section's number.
    private static func isEnd(
        _ rest: UnsafeRawBufferPointer.SubSequence, ofSection number: UnsafeRawBufferPointer.SubSequence
    ) -> Bool {
        switch rest.first {
        case subsection: true
        case footer: rest.dropFirst().prefix(4).elementsEqual(number)
        default: false
        }
    }
}
