extension DirectIO {
    /// Reads what an image says is there. What lies outside the file throws `.corrupt`, and `what` names it.
    public func readPart(
        into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) {
        try check(offset, UInt64(buffer.count), what)
        try read(into: buffer, at: offset)
    }

    /// The same as an array. The caller has bounded `byteCount` by a constant; memory is not taken before it is known that
    /// the file has as much.
    public func part(
        byteCount: Int, at offset: UInt64, _ what: @autoclosure () -> String
    ) throws(ColdframeError) -> [UInt8] {
        try check(offset, UInt64(byteCount), what)
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try bytes.withMutableBytes { (buffer) throws(ColdframeError) in try read(into: buffer, at: offset) }
        return bytes
    }

    private func check(_ offset: UInt64, _ wanted: UInt64, _ what: () -> String) throws(ColdframeError) {
        let size = byteCount
        guard offset <= size, wanted <= size - offset else {
            throw ColdframeError(
                .corrupt,
                "\(what()) (\(wanted) bytes at \(offset)) lies outside the file of \(size) bytes, which is damaged or "
                    + "was cut short")
        }
    }
}
