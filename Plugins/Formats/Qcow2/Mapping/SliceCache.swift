/// Cached slices of L2 tables by their place in the file, bounded in bytes, least recently used (approximated by a
/// clock) evicted first. Every slice is written through, so eviction drops memory only. Not thread-safe: `ClusterMap`
/// holds it under its lock.
///
/// Raw memory throughout: a lookup is on the path of every request and must neither allocate nor count references.
struct SliceCache: ~Copyable {
    private let sliceByteCount: Int
    private let slotCount: Int
    /// Open addressing with linear probing; a bucket holds slot + 1, or 0.
    private let bucketMask: Int
    private let buckets: UnsafeMutablePointer<UInt32>
    private let slots: UnsafeMutablePointer<Slot>
    private var usedCount = 0
    private var clockHand = 0

    private struct Slot {
        /// Host offset of the slice; 0 in a slot that holds none.
        var key: UInt64
        var words: UnsafeMutablePointer<UInt64>?
        var wasUsed: Bool
    }

    init(byteLimit: Int, sliceByteCount: Int) {
        self.sliceByteCount = sliceByteCount
        slotCount = min(max(8, byteLimit / sliceByteCount), 1 << 24)
        var bucketCount = 16
        while bucketCount < slotCount * 2 { bucketCount *= 2 }
        bucketMask = bucketCount - 1
        buckets = .allocate(capacity: bucketCount)
        buckets.initialize(repeating: 0, count: bucketCount)
        slots = .allocate(capacity: slotCount)
        slots.initialize(repeating: Slot(key: 0, words: nil, wasUsed: false), count: slotCount)
    }

    deinit {
        for index in 0..<usedCount { slots[index].words?.deallocate() }
        slots.deallocate()
        buckets.deallocate()
    }

    private func home(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: ((key >> 9) &* 0x9E37_79B9_7F4A_7C15) >> 32) & bucketMask
    }

    /// The slice's words in host order, valid until the next insertion or removal.
    mutating func find(_ key: UInt64) -> UnsafeMutablePointer<UInt64>? {
        var bucket = home(key)
        while buckets[bucket] != 0 {
            let slot = Int(buckets[bucket]) - 1
            if slots[slot].key == key {
                slots[slot].wasUsed = true
                return slots[slot].words
            }
            bucket = (bucket + 1) & bucketMask
        }
        return nil
    }

    /// Takes a slot for a slice that is not cached. The caller fills the words before anybody else looks.
    mutating func insert(_ key: UInt64) -> UnsafeMutablePointer<UInt64> {
        let slot = takeSlot()
        let words = slots[slot].words ?? .allocate(capacity: sliceByteCount / 8)
        slots[slot] = Slot(key: key, words: words, wasUsed: true)
        var bucket = home(key)
        while buckets[bucket] != 0 { bucket = (bucket + 1) & bucketMask }
        buckets[bucket] = UInt32(slot + 1)
        return words
    }

    private mutating func takeSlot() -> Int {
        if usedCount < slotCount {
            usedCount += 1
            return usedCount - 1
        }
        // Two rounds at most: the first clears the marks.
        while true {
            let slot = clockHand
            clockHand = clockHand + 1 == slotCount ? 0 : clockHand + 1
            if slots[slot].key == 0 { return slot }
            if slots[slot].wasUsed {
                slots[slot].wasUsed = false
            } else {
                remove(slots[slot].key)
                return slot
            }
        }
    }

    mutating func remove(_ key: UInt64) {
        var bucket = home(key)
        while buckets[bucket] != 0, slots[Int(buckets[bucket]) - 1].key != key { bucket = (bucket + 1) & bucketMask }
        guard buckets[bucket] != 0 else { return }
        slots[Int(buckets[bucket]) - 1].key = 0
        // Closes the gap: moves every later entry of the chain that may not stand behind an empty bucket.
        var gap = bucket
        var next = (gap + 1) & bucketMask
        while buckets[next] != 0 {
            let wanted = home(slots[Int(buckets[next]) - 1].key)
            if (next &- wanted) & bucketMask >= (next &- gap) & bucketMask {
                buckets[gap] = buckets[next]
                gap = next
            }
            next = (next + 1) & bucketMask
        }
        buckets[gap] = 0
    }

    /// Drops what nobody has looked at since the last call, and gives its memory back.
    mutating func dropUnused() {
        for slot in 0..<usedCount {
            if slots[slot].wasUsed {
                slots[slot].wasUsed = false
                continue
            }
            if slots[slot].key != 0 { remove(slots[slot].key) }
            slots[slot].words?.deallocate()
            slots[slot].words = nil
        }
    }

    /// Memory that the slices take.
    var byteCount: Int { (0..<usedCount).reduce(0) { $0 + (slots[$1].words == nil ? 0 : sliceByteCount) } }

    /// Drops what is cached of a table whose cluster got another content.
    mutating func removeTable(at offset: UInt64, byteCount: Int) {
        for start in stride(from: 0, to: byteCount, by: sliceByteCount) { remove(offset + UInt64(start)) }
    }
}
