import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

@testable import BlkdebugFilter

/// A node of 64 KiB and 100 bytes with a filter above it.
struct BlkdebugTests {
    private let file = MemoryFile()
    private let log = CallLog()
    private static let byteCount = 65536 + 100
    private let bytes: [UInt8] = (0..<Self.byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    private func filter(_ options: JSONObject = [:]) throws -> BlkdebugDriver {
        file.replace(with: bytes)
        var members = options
        members["image"] = "node"
        let branch = try BlockdevOptionsBlkdebug(QAPIInput(.object(members)))
        let rules = BlkdebugRules(branch.injectError ?? [], branch.setState ?? [])
        rules.happened(.none)
        let child = BlockNode(name: "node", driver: RecordingDriver(file, log: log))
        return BlkdebugDriver(child: child, rules: rules, limits: try BlkdebugLimits(branch))
    }

    private func write(_ driver: BlkdebugDriver, _ bytes: [UInt8], at offset: UInt64) throws {
        try driver.writeBytes(bytes, at: offset)
    }

    /// The errno of what is thrown, 0 for nothing.
    private func errno(_ body: () throws -> Void) -> Int32 {
        do { try body() } catch { return ColdframeError(wrapping: error).errno }
        return 0
    }

    private func reads(_ driver: BlkdebugDriver, _ offset: UInt64 = 0, _ count: Int = 512) -> Int32 {
        errno { _ = try driver.readBytes(offset, count) }
    }

    // MARK: Rules

    @Test func withoutRulesItIsTheDiskBelow() throws {
        let driver = try filter()
        #expect(try driver.readBytes(0, Self.byteCount) == bytes)
        try write(driver, [1, 2, 3], at: 70)
        #expect(Array(file.bytes[69..<74]) == [bytes[69], 1, 2, 3, bytes[73]])
    }

    @Test func onceIsOnce() throws {
        let driver = try filter(["inject-error": [["event": "none", "once": true]]])
        #expect(reads(driver) == Errno.io)
        #expect(reads(driver) == 0)
    }

    @Test func aSectorAKindAndAnErrno() throws {
        let driver = try filter(["inject-error": [["event": "none", "iotype": "write", "errno": 28, "sector": 2]]])
        #expect(reads(driver, 0, 4096) == 0)
        #expect(errno { try write(driver, [1], at: 1023) } == 0)
        #expect(errno { try write(driver, [1, 1], at: 1023) } == Errno.noSpace)
        #expect(errno { try write(driver, [1], at: 1024) } == Errno.noSpace)
        // Only the first byte of the sector is what QEMU looks at.
        #expect(errno { try write(driver, [1], at: 1025) } == 0)
    }

    @Test func eachKindFails() throws {
        for kind in ["read", "write", "write-zeroes", "discard", "flush", "block-status"] {
            let driver = try filter(["inject-error": [["event": "none", "iotype": .string(kind)]]])
            let failed = [
                ("read", reads(driver)), ("write", errno { try write(driver, [1], at: 0) }),
                ("write-zeroes", errno { try driver.writeZeroes(at: 0, byteCount: 9, flags: []) }),
                ("discard", errno { try driver.discard(at: 0, byteCount: 9) }), ("flush", errno { try driver.flush() }),
                ("block-status", errno { _ = try driver.extents(at: 0, byteCount: 9, limit: 9) }),
            ].filter { $0.1 != 0 }
            #expect(failed.map(\.0) == [kind])
        }
    }

    @Test func anEventBringsItsRulesAndTakesOthersAway() throws {
        let driver = try filter([
            "inject-error": [
                ["event": "flush_to_os", "iotype": "read", "errno": 5],
                ["event": "l2_update", "iotype": "read", "errno": 28],
            ]
        ])
        #expect(reads(driver) == 0)
        try driver.flush()
        #expect(reads(driver) == Errno.io)
        driver.announced(.updateL2Table)
        #expect(reads(driver) == Errno.noSpace)
        driver.announced(.readGuestData)
        #expect(reads(driver) == Errno.noSpace)
    }

    @Test func statesLeadFromOneToTheNext() throws {
        let driver = try filter([
            "set-state": [
                ["event": "pwritev", "state": 1, "new_state": 2], ["event": "pwritev", "state": 2, "new_state": 3],
            ],
            "inject-error": [["event": "pwritev_done", "state": 3, "iotype": "write", "once": true]],
        ])
        #expect((0..<4).map { _ in errno { try write(driver, [1], at: 0) } } == [0, 0, Errno.io, 0])
    }

    // MARK: Sizes

    @Test func requestsReachTheNodeAligned() throws {
        let driver = try filter(["align": 4096, "max-transfer": 8192])
        try write(driver, [UInt8](repeating: 9, count: 10_000), at: 3000)
        var expected = bytes
        expected.replaceSubrange(3000..<13000, with: [UInt8](repeating: 9, count: 10_000))
        #expect(file.bytes == expected)
        let written = log.entries.compactMap { entry -> [UInt64]? in
            if case .write(let offset, let bytes) = entry.call { [offset, UInt64(bytes.count)] } else { nil }
        }
        #expect(written == [[0, 8192], [8192, 8192]])
        #expect(try driver.readBytes(2999, 10_002) == Array(expected[2999..<13001]))
        // The last block is larger than what is left of the node.
        try write(driver, [7, 7], at: 65536 + 98)
        #expect(file.bytes.count == Self.byteCount && file.bytes.suffix(3) == [bytes[65536 + 97], 7, 7])
        #expect(try driver.readBytes(65530, 106).suffix(2) == [7, 7])
    }

    @Test func onlyWholePiecesAreZeroedAsSuch() throws {
        let driver = try filter(["opt-write-zero": 4096, "max-write-zero": 8192])
        try driver.writeZeroes(at: 4000, byteCount: 16_500, flags: [])
        var calls: [String] = []
        for entry in log.entries {
            switch entry.call {
            case .write(let offset, let bytes): calls.append("write \(offset) \(bytes.count)")
            case .zero(let offset, let byteCount): calls.append("zero \(offset) \(byteCount)")
            default: break
            }
        }
        #expect(calls == ["write 4000 96", "zero 4096 8192", "zero 12288 8192", "write 20480 20"])
        #expect(errno { try driver.writeZeroes(at: 1, byteCount: 9, flags: .noFallback) } == Errno.notSupported)
    }

    @Test(
        arguments: [
            (["align": 3], "align 3"), (["align": 4096, "max-transfer": 4000], "max-transfer 4000"),
            (["opt-write-zero": 512, "max-write-zero": 700], "max-write-zero 700"),
            (["align": 512, "opt-discard": 100], "opt-discard 100"),
            (["opt-discard": 8, "max-discard": 9], "max-discard 9"),
        ] as [(JSONObject, String)])
    func sizesThatDoNotFitAreRefused(_ options: JSONObject, what: String) {
        do {
            _ = try filter(options)
            Issue.record("\(options) is taken")
        } catch { #expect("\(error)" == "Cannot meet constraints with \(what)") }
    }

    // MARK: Files of rules

    @Test func aFileOfRulesIsRead() throws {
        let text = """
            # comment
            [inject-error "first"]
              event = "pwritev"
              errno = "28"
              once = "on"

            [set-state]
            event = "read_aio"
            state = "1"
            new_state = "2"
            """
        let config = try BlkdebugConfig(text: text, path: "rules")
        #expect(config.errors.map(\.errno) == [28] && config.errors.map(\.once) == [true])
        #expect(config.errors.map(\.event) == [.pwritev] && config.changes.map(\.newState) == [2])
    }

    @Test(arguments: [
        ("[other]", "rules:1: There is no option group 'other'"), ("event = \"none\"", "rules:1: no group defined"),
        ("[set-state]\nevent", "rules:2: parse error"), ("[set-state]\nevent = none", "rules:2: parse error"),
        ("\n[inject-error]\nevent = \"nothing\"", "rules:2: Parameter 'event' does not accept value 'nothing'"),
        ("[set-state]\nevent = \"none\"\n", "rules:1: Parameter 'new_state' is missing"),
    ])
    func aFileThatIsNoneIsRefused(_ text: String, words: String) {
        do {
            _ = try BlkdebugConfig(text: text, path: "rules")
            Issue.record("taken: \(text)")
        } catch { #expect("\(error)" == words) }
    }

    @Test func piecesAreMadeOneByOne() {
        let all = Array(RangePieces(3..<40, at: 8, limit: 16))
        #expect(all == [3..<8, 8..<24, 24..<40])
        #expect(Array(RangePieces(3..<7, at: 8, limit: 0)) == [3..<7])
        #expect(Array(RangePieces(8..<43, at: 8, limit: 0)) == [8..<40, 40..<43])
        #expect(Array(RangePieces(5..<5, at: 8, limit: 1)) == [])
        // As an array they would fill the host.
        var pieces = RangePieces(0..<1 << 50, at: 1, limit: 1)
        #expect(pieces.next() == 0..<1 && pieces.next() == 1..<2)
    }
}
