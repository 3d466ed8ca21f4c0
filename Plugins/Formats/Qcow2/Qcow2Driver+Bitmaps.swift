import ColdframeKit

extension Qcow2Driver: BitmapBearing {
    public func loadBitmaps() throws(ColdframeError) -> [DirtyBitmap] {
        var loaded: [DirtyBitmap] = []
        for entry in try bitmaps.load(marking: !isReadOnly) {
            var state = DirtyBitmap.State(name: entry.name)
            state.isPersistent = true
            state.isRecording = entry.flags.contains(.auto)
            state.isReadOnly = isReadOnly
            state.isInconsistent = entry.flags.contains(.inUse)
            let bits: DirtyBits
            if state.isInconsistent {
                bits = DirtyBits(diskByteCount: byteCount, granularity: 1 << UInt32(entry.granularityBits))
            } else {
                bits = try bitmaps.bits(entry, diskByteCount: byteCount)
            }
            loaded.append(DirtyBitmap(bits: bits, state: state))
        }
        return loaded
    }

    public func checkCanStoreBitmap(
        name: String, granularity: UInt32, diskByteCount: UInt64, beside others: [String]
    ) throws(ColdframeError) {
        func refuse(_ isWrong: Bool, _ why: String) throws(ColdframeError) {
            if isWrong { throw ColdframeError(.invalidArgument, why) }
        }
        try refuse(geometry.version < 3, "Cannot store dirty bitmaps in qcow2 v2 files")
        let bits = UInt8(granularity.trailingZeroBitCount)
        let range = BitmapDirectory.granularityBitsRange
        try refuse(bits > range.upperBound, "Granularity exceeds maximum (\(1 << UInt64(range.upperBound)) bytes)")
        try refuse(bits < range.lowerBound, "Granularity is under minimum (\(1 << UInt64(range.lowerBound)) bytes)")
        try refuse(
            !BitmapDirectory.canHold(bitsOfByteCount(diskByteCount, granularity), geometry),
            "Too much space will be occupied by the bitmap. Use larger granularity")
        try refuse(
            name.utf8.count > BitmapDirectory.nameByteCountLimit,
            "Name length exceeds maximum (\(BitmapDirectory.nameByteCountLimit) characters)")
        try refuse(
            others.count >= Int(BitmapDirectory.countLimit), "Maximum number of persistent bitmaps is already reached")
        let directoryByteCount = (others + [name]).reduce(UInt64(0)) { $0 + BitmapDirectory.entryByteCount(name: $1) }
        try refuse(
            directoryByteCount > BitmapDirectory.byteCountLimit, "Not enough space in the bitmap directory")
    }

    /// Of the bits of a bitmap for such a disk.
    private func bitsOfByteCount(_ diskByteCount: UInt64, _ granularity: UInt32) -> UInt64 {
        let bitCount = diskByteCount / UInt64(granularity) + (diskByteCount % UInt64(granularity) == 0 ? 0 : 1)
        return (bitCount + 7) / 8
    }

    public func storeBitmaps(_ list: [DirtyBitmap]) throws(ColdframeError) {
        guard !isReadOnly else { return }
        let stored = bitmaps.entries
        guard !list.isEmpty || !stored.isEmpty else { return }
        try writer.prepare()
        try bitmaps.replace(
            by: list.compactMap { bitmap in
                let state = bitmap.state
                guard let name = state.name else { return nil }
                if state.isInconsistent { return stored.first { $0.name == name }.map { .kept($0) } }
                return .new(name: name, bits: bitmap.bits, isAuto: state.isRecording)
            })
    }

    public func removeStoredBitmap(name: String) throws(ColdframeError) {
        let stored = bitmaps.entries
        guard stored.contains(where: { $0.name == name }) else { return }
        try bitmaps.replace(by: stored.filter { $0.name != name }.map { .kept($0) })
    }
}
