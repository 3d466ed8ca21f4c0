import Testing

@testable import QEMUGuest

@Suite struct StateClockTests {
    /// A section `timer` as QEMU writes it, number 7.
    private func section(clock: UInt64, name: String = "timer", version: UInt8 = 2, end: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] =
            [4, 0, 0, 0, 7, UInt8(name.utf8.count)] + Array(name.utf8) + [0, 0, 0, 0, 0, 0, 0, version]
        bytes += [UInt8](repeating: 1, count: 8) + [UInt8](repeating: 0, count: 8)
        bytes.appendBigEndian(clock)
        return bytes + end
    }

    private let footer: [UInt8] = [0x7e, 0, 0, 0, 7]

    @Test func itIsFoundAmongOtherBytes() {
        let noise = [UInt8](repeating: 4, count: 100)
        let bytes = noise + section(clock: 12_345_678_901, end: footer) + noise
        #expect(StateClock.nanoseconds(inStateTail: bytes) == 12_345_678_901)
        #expect(StateClock.nanoseconds(inStateTail: section(clock: 1, end: footer)) == 1)
    }

    @Test func theLastOneCounts() {
        let both = section(clock: 1, end: footer) + section(clock: 2, end: footer)
        #expect(StateClock.nanoseconds(inStateTail: both) == 2)
    }

    @Test func aSubsectionMayFollow() {
        #expect(StateClock.nanoseconds(inStateTail: section(clock: 9, end: [5, 12])) == 9)
    }

    @Test func whatOnlyLooksLikeOneIsNone() {
        let broken: [[UInt8]] = [
            [], [4], section(clock: 9, end: []), section(clock: 9, end: [0x7e, 0, 0, 0, 8]),
            section(clock: 9, end: [0x7e, 0]),
            section(clock: 9, version: 3, end: footer), section(clock: 9, name: "timex", end: footer),
            section(clock: 1 << 63, end: footer),
        ]
        for bytes in broken { #expect(StateClock.nanoseconds(inStateTail: bytes) == nil) }
    }
}
