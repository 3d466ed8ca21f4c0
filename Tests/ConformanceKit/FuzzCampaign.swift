import ColdframeKit
import LinuxSystem

/// Damages the files of a good image and opens what comes of it: an error in words, or a disk; never a crash, memory
/// without bound or a loop without end.
///
/// `COLDFRAME_FUZZ_RUNS` sets the number of images, `COLDFRAME_FUZZ_SEED` the first seed, which is printed: a crash is
/// repeated by it.
public struct FuzzCampaign: Sendable {
    /// The files of an image by name.
    public typealias Contents = [String: [UInt8]]

    let subject: DiskSubject
    let contents: Contents
    let defaultRuns: Int
    let mend: (@Sendable (inout Contents) -> Void)?

    private static let memoryLimit = 256 << 20
    private static let nanosecondLimit: UInt64 = 60_000_000_000

    /// - Parameters:
    ///   - contents: a good image with as many features of the format as it has.
    ///   - mend: makes checksums right again, so that damage gets behind them; used on every other image.
    public init(
        subject: DiskSubject, contents: Contents, defaultRuns: Int = 200,
        mend: (@Sendable (inout Contents) -> Void)? = nil
    ) {
        self.subject = subject
        self.contents = contents
        self.defaultRuns = defaultRuns
        self.mend = mend
    }

    public func run() throws {
        let runs = ProcessControl.environment("COLDFRAME_FUZZ_RUNS").flatMap { Int($0) } ?? defaultRuns
        let first =
            ProcessControl.environment("COLDFRAME_FUZZ_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("\(subject.name): \(runs) damaged images from seed \(first)")
        let before = try Self.residentByteCount()
        for run in 0..<UInt64(runs) {
            let start = SystemClock.monotonicNanoseconds()
            var generator = SeededGenerator(seed: first &+ run)
            var damaged = contents
            for _ in 0..<Int.random(in: 1...4, using: &generator) { damage(&damaged, &generator) }
            if run % 2 == 0 { mend?(&damaged) }
            let writes = Bool.random(using: &generator)
            do {
                try open(damaged, writes: writes)
            } catch {
                throw ColdframeError(wrapping: error).prefixed("\(subject.name): seed \(first &+ run)")
            }
            guard SystemClock.monotonicNanoseconds() - start < Self.nanosecondLimit else {
                throw ColdframeError(.corrupt, "\(subject.name): seed \(first &+ run) took more than a minute")
            }
        }
        let grown = try Self.residentByteCount() - before
        guard grown < Self.memoryLimit else {
            throw ColdframeError(.corrupt, "\(subject.name): took \(grown) bytes for damaged images from seed \(first)")
        }
    }

    /// A byte, a number or a piece of one file becomes another, or the file ends early. Metadata stand at the beginning
    /// more often than not.
    private func damage(_ contents: inout Contents, _ generator: inout SeededGenerator) {
        let file = subject.files.randomElement(using: &generator) ?? ""
        guard var bytes = contents[file], !bytes.isEmpty else { return }
        let limit = [min(bytes.count, 512), min(bytes.count, 8192), bytes.count].randomElement(using: &generator)!
        let place = Int.random(in: 0..<limit, using: &generator)
        switch Int.random(in: 0..<8, using: &generator) {
        case 0: bytes.removeLast(bytes.count - place)
        case 1, 2:
            let count = min(Int.random(in: 1...64, using: &generator), bytes.count - place)
            let source = Int.random(in: 0...bytes.count - count, using: &generator)
            bytes.replaceSubrange(place..<place + count, with: bytes[source..<source + count])
        case 3, 4, 5:
            let size = UInt64(bytes.count)
            let values: [UInt64] = [
                0, 1, .max, .max - 1, 1 << 31, 1 << 63, UInt64(UInt32.max), size, size - 1, size + 1, size / 512,
                generator.next() % (size * 2), generator.next(),
            ]
            var number: [UInt8] = []
            let value = values.randomElement(using: &generator)!
            if Bool.random(using: &generator) {
                number.appendBigEndian(value)
            } else {
                number.appendLittleEndian(value)
            }
            let width = [2, 4, 8].randomElement(using: &generator)!
            let start = place / width * width
            guard start + width <= bytes.count else { break }
            // The low end of the number, in either order.
            bytes.replaceSubrange(
                start..<start + width,
                with: number[0] == UInt8(truncatingIfNeeded: value) ? number.prefix(width) : number.suffix(width))
        default: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        }
        contents[file] = bytes
    }

    /// Opens the image and uses what there is: errors of ours are as good as success.
    private func open(_ contents: Contents, writes: Bool) throws {
        let image = try SubjectImage(subject, contents: contents)
        do {
            let driver = try image.open(isReadOnly: true)
            for disk in [driver] + Self.snapshots(of: driver) {
                // A hostile size may be anything.
                let count = min(disk.byteCount, 1 << 18)
                _ = try disk.readBytes(0, Int(count))
                _ = try disk.readBytes(disk.byteCount - min(disk.byteCount, 4096), Int(min(disk.byteCount, 4096)))
                _ = try disk.extents(at: 0, byteCount: count, limit: 64)
            }
            _ = try driver.information()
            try driver.close()
        } catch is ColdframeError {}
        guard writes else { return }
        do {
            let driver = try image.open()
            defer { try? driver.close() }
            guard !driver.isReadOnly, driver.byteCount > 0 else { return }
            let count = min(driver.byteCount, 1 << 17)
            try driver.writeBytes([UInt8](repeating: 1, count: Int(count)), at: 0)
            if let bearer = driver as? any SnapshotBearing {
                _ = try bearer.createSnapshot(SnapshotRequest(name: "new", dateSeconds: 0, dateNanoseconds: 0))
                if let id = bearer.snapshots.first?.id { try bearer.deleteSnapshot(id: id) }
            }
            try driver.discard(at: 0, byteCount: count)
            try driver.flush()
        } catch is ColdframeError {}
    }

    private static func snapshots(of driver: any BlockDriver) -> [any BlockDriver] {
        guard let bearer = driver as? any SnapshotBearing else { return [] }
        return bearer.snapshots.prefix(8).compactMap { try? bearer.openSnapshot(id: $0.id) }
    }

    static func residentByteCount() throws -> Int {
        let words = String(decoding: try Files.readAll("/proc/self/statm"), as: UTF8.self).split(separator: " ")
        return (Int(words[1]) ?? 0) * 4096
    }
}
