import CChecksum
import Testing

@Suite struct ChecksumTests {
    private static let known: [([UInt8], UInt32)] = [
        (Array("123456789".utf8), 0xe306_9283),
        ([UInt8](repeating: 0, count: 32), 0x8a91_36aa),
        ([UInt8](repeating: 0xff, count: 32), 0x62a8_ab43),
        (Array(0..<32), 0x46dd_794e),
        ([], 0),
    ]

    /// The check value of CRC-32C, and the examples of RFC 3720 appendix B.4.
    @Test(arguments: known)
    func knownValues(_ bytes: [UInt8], _ expected: UInt32) {
        #expect(cf_crc32c(0, bytes, bytes.count) == expected)
        #expect(cf_crc32c_portable(0, bytes, bytes.count) == expected)
    }

    @Test(arguments: [1, 7, 8, 255, 767, 768, 769, 4096, 12287, 12288, 12289, 40000])
    func bothWaysAgree(_ count: Int) {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
        #expect(cf_crc32c(0, bytes, count) == cf_crc32c_portable(0, bytes, count))
    }

    @Test func piecesMakeTheWhole() {
        let bytes = (0..<30000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let whole = cf_crc32c(0, bytes, bytes.count)
        for cut in [0, 1, 13, 12288, 29999] {
            let first = cf_crc32c(0, bytes, cut)
            #expect(Array(bytes[cut...]).withUnsafeBytes { cf_crc32c(first, $0.baseAddress, $0.count) } == whole)
        }
    }
}
