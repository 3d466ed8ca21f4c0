import CLinux
import Glibc

/// Random numbers of the kernel, good for keys and names.
public enum SystemRandom {
    /// `getrandom(2)`.
    public static func bytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.withUnsafeMutableBytes { buffer in
            var done = 0
            while done < buffer.count {
                // Cannot fail with these arguments but for EINTR, which repeats.
                let got = cf_random(buffer.baseAddress! + done, buffer.count - done)
                if got > 0 { done += got }
            }
        }
        return bytes
    }
}

/// UUIDs as text.
public enum UUIDText {
    /// A random (version 4) UUID in lower case: 8-4-4-4-12 hexadecimal digits.
    public static func generate() -> String {
        var bytes = SystemRandom.bytes(16)
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text.append(UInt8(ascii: "-")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
