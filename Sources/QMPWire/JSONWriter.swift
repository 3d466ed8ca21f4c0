import Glibc  // snprintf only: the standard library does not print a double in 17 digits

/// Writes values as QEMU's monitor does: pure ASCII, everything else as `\uXXXX`, surrogate pairs beyond U+FFFF.
///
/// Noncharacters, which no peer would accept, become U+FFFD.
public enum JSONWriter {
    /// On one line, a blank after each comma and colon.
    public static func compact(_ value: JSONValue, into output: inout [UInt8]) {
        write(value, indentation: nil, into: &output)
    }

    /// Over several lines, four blanks for each level; an empty object or array takes two lines.
    public static func pretty(_ value: JSONValue, into output: inout [UInt8]) {
        write(value, indentation: 0, into: &output)
    }

    /// The text without a line end.
    public static func string(_ value: JSONValue, pretty: Bool = false) -> String {
        var output: [UInt8] = []
        write(value, indentation: pretty ? 0 : nil, into: &output)
        return String(decoding: output, as: UTF8.self)
    }

    /// One message as a monitor sends it: every line ends in CR LF.
    public static func message(_ value: JSONValue, pretty: Bool = false) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(256)
        write(value, indentation: pretty ? 0 : nil, into: &output)
        output.append(UInt8(ascii: "\n"))
        guard pretty else {
            output.insert(UInt8(ascii: "\r"), at: output.count - 1)
            return output
        }
        var lines: [UInt8] = []
        lines.reserveCapacity(output.count + output.count / 16)
        for byte in output {
            // A line feed within a string is escaped, so that every one here ends a line.
            if byte == UInt8(ascii: "\n") { lines.append(UInt8(ascii: "\r")) }
            lines.append(byte)
        }
        return lines
    }

    private static func write(_ value: JSONValue, indentation: Int?, into output: inout [UInt8]) {
        switch value {
        case .null: output.append(contentsOf: "null".utf8)
        case .bool(let value): output.append(contentsOf: (value ? "true" : "false").utf8)
        case .integer(let value): output.append(contentsOf: String(value).utf8)
        case .unsigned(let value): output.append(contentsOf: String(value).utf8)
        case .double(let value): write(value, into: &output)
        case .string(let value): write(value, into: &output)
        case .array(let elements):
            let inner = indentation.map { $0 + 1 }
            output.append(UInt8(ascii: "["))
            var isFirst = true
            for element in elements {
                separate(isFirst: isFirst, indentation: inner, into: &output)
                isFirst = false
                write(element, indentation: inner, into: &output)
            }
            breakLine(indentation, into: &output)
            output.append(UInt8(ascii: "]"))
        case .object(let object):
            let inner = indentation.map { $0 + 1 }
            output.append(UInt8(ascii: "{"))
            var isFirst = true
            for (key, value) in object {
                separate(isFirst: isFirst, indentation: inner, into: &output)
                isFirst = false
                write(key, into: &output)
                output.append(contentsOf: ": ".utf8)
                write(value, indentation: inner, into: &output)
            }
            breakLine(indentation, into: &output)
            output.append(UInt8(ascii: "}"))
        }
    }

    private static func separate(isFirst: Bool, indentation: Int?, into output: inout [UInt8]) {
        if !isFirst {
            output.append(UInt8(ascii: ","))
            if indentation == nil { output.append(UInt8(ascii: " ")) }
        }
        breakLine(indentation, into: &output)
    }

    private static func breakLine(_ indentation: Int?, into output: inout [UInt8]) {
        guard let indentation else { return }
        output.append(UInt8(ascii: "\n"))
        output.append(contentsOf: repeatElement(UInt8(ascii: " "), count: indentation * 4))
    }

    /// 17 significant digits, which any double survives; whole numbers without a point, so 1.0 is printed as 1. What is
    /// not finite cannot come from the wire; it is written as null to keep the output JSON.
    private static func write(_ value: Double, into output: inout [UInt8]) {
        guard value.isFinite else { return output.append(contentsOf: "null".utf8) }
        var buffer = [CChar](repeating: 0, count: 40)  // longer than any %.17g
        let count = withVaList([value]) { vsnprintf(&buffer, buffer.count, "%.17g", $0) }
        output.append(contentsOf: buffer.prefix(Int(count)).lazy.map { UInt8(bitPattern: $0) })
    }

    private static func write(_ text: String, into output: inout [UInt8]) {
        output.append(UInt8(ascii: "\""))
        defer { output.append(UInt8(ascii: "\"")) }
        // Names, words and paths, nearly always: nothing in them is escaped.
        let isWritten = text.utf8.withContiguousStorageIfAvailable { bytes in
            guard bytes.allSatisfy(isPlain) else { return false }
            output.append(contentsOf: bytes)
            return true
        }
        if isWritten == true { return }
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": output.append(contentsOf: "\\\"".utf8)
            case "\\": output.append(contentsOf: "\\\\".utf8)
            case "\u{08}": output.append(contentsOf: "\\b".utf8)
            case "\u{0C}": output.append(contentsOf: "\\f".utf8)
            case "\n": output.append(contentsOf: "\\n".utf8)
            case "\r": output.append(contentsOf: "\\r".utf8)
            case "\t": output.append(contentsOf: "\\t".utf8)
            case " "..<"\u{7F}": output.append(UInt8(scalar.value))
            default:
                for unit in String(ModifiedUTF8.scalar(scalar.value) ?? "\u{FFFD}").utf16 {
                    writeEscape(unit, into: &output)
                }
            }
        }
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= UInt8(ascii: " ") && byte < 0x7F && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    private static func writeEscape(_ unit: UInt16, into output: inout [UInt8]) {
        output.append(contentsOf: "\\u".utf8)
        for shift in stride(from: 12, through: 0, by: -4) {
            let digit = UInt8(unit >> UInt16(shift) & 0xF)
            output.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "A") + digit - 10)
        }
    }
}
