/// Writes the heads of replies into memory that the caller owns. Each returns the number of bytes written.
enum WireReply {
    static let simpleByteCount = 16
    static let chunkByteCount = 20
    /// Head of a data chunk with its offset.
    static let dataHeadByteCount = 28
    /// A whole hole chunk.
    static let holeByteCount = 32

    @inline(__always)
    static func simple(_ target: UnsafeMutableRawPointer, cookie: UInt64, error: UInt32) -> Int {
        target.storeBig(WireMagic.simpleReply, at: 0)
        target.storeBig(error, at: 4)
        target.storeBig(cookie, at: 8)
        return simpleByteCount
    }

    @inline(__always)
    static func chunk(
        _ target: UnsafeMutableRawPointer, _ type: WireChunk, cookie: UInt64, payloadByteCount: Int, isLast: Bool
    ) -> Int {
        target.storeBig(WireMagic.structuredReply, at: 0)
        target.storeBig(UInt16(isLast ? 1 : 0), at: 4)
        target.storeBig(type.rawValue, at: 6)
        target.storeBig(cookie, at: 8)
        target.storeBig(UInt32(truncatingIfNeeded: payloadByteCount), at: 16)
        return chunkByteCount
    }

    @inline(__always)
    static func dataHead(
        _ target: UnsafeMutableRawPointer, cookie: UInt64, offset: UInt64, byteCount: Int, isLast: Bool
    ) -> Int {
        _ = chunk(target, .offsetData, cookie: cookie, payloadByteCount: 8 + byteCount, isLast: isLast)
        target.storeBig(offset, at: chunkByteCount)
        return dataHeadByteCount
    }

    @inline(__always)
    static func hole(
        _ target: UnsafeMutableRawPointer, cookie: UInt64, offset: UInt64, byteCount: Int, isLast: Bool
    ) -> Int {
        _ = chunk(target, .offsetHole, cookie: cookie, payloadByteCount: 12, isLast: isLast)
        target.storeBig(offset, at: chunkByteCount)
        target.storeBig(UInt32(truncatingIfNeeded: byteCount), at: chunkByteCount + 8)
        return holeByteCount
    }

    /// An error chunk, always the last of its reply. `text` is cut so that the whole fits into `capacity` bytes.
    static func error(
        _ target: UnsafeMutableRawPointer, capacity: Int, cookie: UInt64, _ error: WireError, _ text: String
    ) -> Int {
        let head = chunkByteCount + 6
        var text = text
        let room = max(0, min(capacity - head, WireLimit.stringByteCount))
        let count = text.withUTF8 { utf8 in
            var count = min(utf8.count, room)
            // Do not cut a character in two.
            while count > 0, count < utf8.count, utf8[count] & 0xc0 == 0x80 { count -= 1 }
            if count > 0, let source = utf8.baseAddress { (target + head).copyMemory(from: source, byteCount: count) }
            return count
        }
        _ = chunk(target, .error, cookie: cookie, payloadByteCount: 6 + count, isLast: true)
        target.storeBig(error.rawValue, at: chunkByteCount)
        target.storeBig(UInt16(count), at: chunkByteCount + 4)
        return head + count
    }
}
