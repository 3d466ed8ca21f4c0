import ColdframeKit

/// The bytes of an image's first cluster, and which of them somebody reads.
struct HeaderSpace {
    /// The unit that a disk writes whole or not at all.
    static let sectorByteCount = 512

    let header: Header
    /// As far as the file or the header reaches.
    let bytes: [UInt8]
    /// Behind the fields: extensions, their end, the backing file's name. A table of names is read to its first blank one.
    let occupied: [Range<Int>]

    init(_ bytes: [UInt8], _ header: Header) {
        self.bytes = bytes
        self.header = header
        let name = Int(header.backingNameOffset)..<Int(header.backingNameOffset) + Int(header.backingNameByteCount)
        occupied = HeaderExtensions.ranges(bytes, header) + (name.isEmpty ? [] : [name])
    }

    /// The cluster once these bytes have been written, with the header that is in force then.
    func after(_ steps: [(place: Int, bytes: [UInt8])], _ header: Header) -> HeaderSpace {
        var bytes = bytes
        for step in steps {
            let end = step.place + step.bytes.count
            if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
            bytes.replaceSubrange(step.place..<end, with: step.bytes)
        }
        return HeaderSpace(bytes, header)
    }

    /// Where something may be put that needs room behind `place`: there, or behind one of the things that are there.
    func openings(from place: Int) -> [Int] {
        [place] + occupied.map(\.upperBound).filter { $0 > place }.sorted()
    }

    /// Nothing that is read changes if these bytes are written there.
    func canTake(_ new: ArraySlice<UInt8>, at place: Int) -> Bool {
        new.enumerated().allSatisfy { index, byte in
            let position = place + index
            return holds(byte, at: position) || !occupied.contains { $0.contains(position) }
        }
    }

    /// These bytes are there already.
    func holds(_ new: ArraySlice<UInt8>, at place: Int) -> Bool {
        new.enumerated().allSatisfy { index, byte in holds(byte, at: place + index) }
    }

    private func holds(_ byte: UInt8, at position: Int) -> Bool {
        // What the file does not have reads as zeros once it is longer.
        position < bytes.count ? bytes[position] == byte : byte == 0
    }
}
