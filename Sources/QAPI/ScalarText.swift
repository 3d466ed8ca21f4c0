/// Scalars of a command line, read as the C library and QEMU read them.
enum ScalarText {
    static func bool(_ text: String) -> Bool? {
        switch text {
        case "on", "yes", "true", "y": true
        case "off", "no", "false", "n": false
        default: nil
        }
    }

    static func signedInteger(_ text: String) -> Int64? {
        guard let (isNegative, magnitude) = integer(text[...]) else { return nil }
        if isNegative {
            return magnitude <= Int64.min.magnitude ? Int64(truncatingIfNeeded: 0 &- magnitude) : nil
        }
        return Int64(exactly: magnitude)
    }

    /// A negative number wraps around.
    static func unsignedInteger(_ text: String) -> UInt64? {
        guard let (isNegative, magnitude) = integer(text[...]) else { return nil }
        return isNegative ? 0 &- magnitude : magnitude
    }

    /// Finite numbers.
    static func number(_ text: String) -> Double? {
        guard let number = Double(withoutLeadingBlanks(text[...])), number.isFinite else { return nil }
        return number
    }

    /// A count of bytes with a suffix of B, K, M, G, T, P or E in powers of 1024; a fraction needs a suffix.
    static func byteCount(_ text: String) -> UInt64? {
        let digits = withoutLeadingBlanks(text[...])
        if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
            let hexadecimal = digits.dropFirst(2).prefix { $0.isASCII && $0.isHexDigit }
            guard let value = UInt64(hexadecimal, radix: 16) else { return nil }
            return scaled(value, numerator: 0, denominator: 1, suffix: digits.dropFirst(2 + hexadecimal.count))
        }
        let unsigned = digits.hasPrefix("+") ? digits.dropFirst() : digits
        let whole = unsigned.prefix { $0.isASCII && $0.isNumber }
        guard let value = UInt64(whole) else { return nil }
        var rest = unsigned.dropFirst(whole.count)
        guard rest.hasPrefix(".") else { return scaled(value, numerator: 0, denominator: 1, suffix: rest) }
        rest = rest.dropFirst()
        let fraction = rest.prefix { $0.isASCII && $0.isNumber }
        rest = rest.dropFirst(fraction.count)
        // 18 digits are more than a fraction of the largest unit can tell.
        var numerator: UInt64 = 0
        var denominator: UInt64 = 1
        for digit in fraction.prefix(18) {
            numerator = numerator * 10 + UInt64(digit.wholeNumberValue ?? 0)
            denominator *= 10
        }
        return scaled(value, numerator: numerator, denominator: denominator, suffix: rest)
    }

    private static func scaled(
        _ whole: UInt64, numerator: UInt64, denominator: UInt64, suffix: Substring
    ) -> UInt64? {
        let shift: UInt64
        switch suffix.uppercased() {
        case "", "B": shift = 0
        case "K": shift = 10
        case "M": shift = 20
        case "G": shift = 30
        case "T": shift = 40
        case "P": shift = 50
        case "E": shift = 60
        default: return nil
        }
        if shift == 0 { return numerator == 0 ? whole : nil }
        let unit = UInt64(1) << shift
        let (product, overflow) = whole.multipliedReportingOverflow(by: unit)
        // numerator is less than denominator, hence the quotient fits; a half rounds up.
        let (quotient, remainder) = denominator.dividingFullWidth(numerator.multipliedFullWidth(by: unit))
        let rounded = quotient + (remainder >= denominator - remainder ? 1 : 0)
        let (sum, sumOverflow) = product.addingReportingOverflow(rounded)
        return overflow || sumOverflow ? nil : sum
    }

    /// Sign and magnitude of a decimal, octal (`0…`) or hexadecimal (`0x…`) number.
    private static func integer(_ text: Substring) -> (isNegative: Bool, magnitude: UInt64)? {
        var digits = withoutLeadingBlanks(text)
        var isNegative = false
        if let sign = digits.first, sign == "-" || sign == "+" {
            isNegative = sign == "-"
            digits = digits.dropFirst()
        }
        var radix = 10
        if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
            radix = 16
            digits = digits.dropFirst(2)
        } else if digits.hasPrefix("0") {
            radix = 8
        }
        // A second sign would be taken by the standard library.
        guard let first = digits.first, first.isASCII, first.isHexDigit, let magnitude = UInt64(digits, radix: radix)
        else { return nil }
        return (isNegative, magnitude)
    }

    private static func withoutLeadingBlanks(_ text: Substring) -> Substring {
        text.drop { " \t\n\r\u{0B}\u{0C}".contains($0) }
    }
}
