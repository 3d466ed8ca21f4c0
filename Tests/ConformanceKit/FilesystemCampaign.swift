import ColdframeKit
import LinuxSystem

/// What every guest filesystem must stand: damaged and short volumes, reads that fail, several threads.
///
/// `COLDFRAME_FUZZ_RUNS` sets the number of damaged volumes, `COLDFRAME_FUZZ_SEED` the first seed, which is printed.
public struct FilesystemCampaign: Sendable {
    private let factory: any GuestFilesystemFactory
    private let sample: FilesystemSample
    private static let memoryLimit = 256 << 20
    private static let nanosecondLimit: UInt64 = 60_000_000_000

    public init(_ factory: any GuestFilesystemFactory, _ sample: FilesystemSample) {
        self.factory = factory
        self.sample = sample
    }

    private func failure(_ what: String) -> ColdframeError { ColdframeError(.corrupt, "\(factory.typeName) \(what)") }

    /// The volume as it is: the files that a tool put there, and nothing else.
    public func runWhole() throws {
        let volume = MemoryVolume(sample.bytes)
        if sample.files != nil, try !factory.recognises(volume) { throw failure("does not recognise its own volume") }
        let filesystem = try factory.open(volume).forAnyThread
        guard filesystem.typeName == factory.typeName else { throw failure("calls itself \(filesystem.typeName)") }
        guard (0...64 << 20).contains(filesystem.memoryByteLimit) else {
            throw failure("keeps \(filesystem.memoryByteLimit) bytes, more than 64 MiB")
        }
        guard filesystem.information.byteCount <= volume.byteCount else { throw failure("is larger than its volume") }
        let walk = try FilesystemWalk(filesystem)
        if let files = sample.files {
            for (path, content) in files where walk.found[path] != content {
                throw failure("has '\(path)' with \(walk.found[path]?.count ?? -1) bytes instead of \(content.count)")
            }
        }
        for stranger in ["no such file", ".", "..", ""] {
            if try filesystem.lookUp(stranger, in: filesystem.root) != nil { throw failure("has a file '\(stranger)'") }
        }
        if (try? filesystem.attributes(of: GuestFileID(.max))) != nil { throw failure("knows a file of any number") }
        // Positions come back from readers, who may send anything.
        for position in [.max, 1 << 59, 1 << 32] as [UInt64] {
            _ = try? filesystem.list(filesystem.root, from: position, limit: 1)
        }
    }

    /// Looks at no more than 64 KiB, and takes neither zeros nor noise for its own.
    public func runStrangers() throws {
        for bytes in [[], [UInt8](repeating: 0, count: 1 << 20), SeededGenerator.bytes(1 << 20, seed: 9)] {
            let volume = MemoryVolume(bytes)
            if try factory.recognises(volume) { throw failure("takes \(bytes.count) bytes of anything for its own") }
            let count = volume.ranges.reduce(0) { $0 + $1.count }
            guard count <= 64 << 10 else { throw failure("reads \(count) bytes to recognise a volume") }
        }
    }

    /// The volume was cut short: an error, or all that is left of it.
    public func runShort() throws {
        for share in 0..<32 { try open(Array(sample.bytes.prefix(sample.bytes.count * share / 32))) }
        for count in [1, 100, 511, 512, 513, 1024, 4096] { try open(Array(sample.bytes.prefix(count))) }
    }

    /// Each of the first reads fails once: an error in words, and afterwards everything is as it was.
    public func runFaults(limit: Int = 60) throws {
        let whole = try FilesystemWalk(try factory.open(MemoryVolume(sample.bytes)).forAnyThread)
        for n in 1...limit {
            let volume = MemoryVolume(sample.bytes)
            volume.fail(read: n)
            let filesystem: any GuestFilesystem
            do { filesystem = try factory.open(volume).forAnyThread } catch { continue }
            do {
                _ = try FilesystemWalk(filesystem)
                if volume.readCount >= n {
                    throw FilesystemWalk.Broken(description: "read \(n) failed, and nobody says so")
                }
                return
            } catch is ColdframeError {}
            guard try FilesystemWalk(filesystem).found == whole.found else {
                throw failure("shows something else after read \(n) failed once")
            }
        }
    }

    /// Four threads see what one sees.
    public func runThreads() throws {
        let filesystem = try factory.open(MemoryVolume(sample.bytes)).forAnyThread
        let expected = try FilesystemWalk(filesystem).found
        let differing = Locked(0)
        let threads = try (0..<4).map { _ in
            try SystemThread.start(name: "conformance") {
                let isSame = (try? FilesystemWalk(filesystem).found == expected) ?? false
                if !isSame { differing.withLock { $0 += 1 } }
            }
        }
        for thread in threads { thread.join() }
        guard differing.withLock({ $0 }) == 0 else { throw failure("shows several threads other things than one") }
    }

    /// Damage of what is read when the volume is opened and listed.
    public func runFuzz(defaultRuns: Int = 150) throws {
        let runs = ProcessControl.environment("COLDFRAME_FUZZ_RUNS").flatMap { Int($0) } ?? defaultRuns
        let first =
            ProcessControl.environment("COLDFRAME_FUZZ_SEED").flatMap { UInt64($0) }
            ?? SystemClock.monotonicNanoseconds()
        print("\(factory.typeName): \(runs) damaged volumes from seed \(first)")
        let volume = MemoryVolume(sample.bytes)
        _ = try FilesystemWalk(try factory.open(volume).forAnyThread)
        let places = volume.ranges
        guard !places.isEmpty else { return }
        let before = try FuzzCampaign.residentByteCount()
        for seed in first..<first + UInt64(runs) {
            var generator = SeededGenerator(seed: seed)
            var bytes = sample.bytes
            for _ in 0..<Int.random(in: 1...4, using: &generator) { Self.damage(&bytes, places, &generator) }
            let start = SystemClock.monotonicNanoseconds()
            do { try open(bytes) } catch { throw failure("with seed \(seed): \(error)") }
            guard SystemClock.monotonicNanoseconds() - start < Self.nanosecondLimit else {
                throw failure("with seed \(seed): took more than a minute")
            }
        }
        let grown = try FuzzCampaign.residentByteCount() - before
        guard grown < Self.memoryLimit else { throw failure("took \(grown) bytes for volumes from seed \(first)") }
    }

    private static func damage(
        _ bytes: inout [UInt8], _ places: [Range<Int>], _ generator: inout SeededGenerator
    ) {
        guard let range = places.randomElement(using: &generator), !range.isEmpty else { return }
        // The beginning of what is read at once says most.
        let reach = Bool.random(using: &generator) ? min(64, range.count) : range.count
        let place = range.lowerBound + Int.random(in: 0..<reach, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        case 1:
            let value: UInt64 = [0, 1, 2, .max, 0x7FFF_FFFF, 0xFFFF, 0x0FFF_FFF7, generator.next()]
                .randomElement(using: &generator)!
            let width = [2, 4, 8].randomElement(using: &generator)!
            for index in 0..<width where place + index < bytes.count {
                bytes[place + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))
            }
        default:
            // Entries that stand for others.
            let count = min(32, range.upperBound - place)
            let source = places.randomElement(using: &generator)!.lowerBound
            guard source + count <= bytes.count else { return }
            bytes.replaceSubrange(place..<place + count, with: bytes[source..<source + count])
        }
    }

    /// Errors of ours are as good as success; a broken promise is not.
    private func open(_ bytes: [UInt8]) throws {
        let volume = MemoryVolume(bytes)
        do {
            _ = try factory.recognises(volume)
            _ = try FilesystemWalk(try factory.open(volume).forAnyThread, goesOn: true)
        } catch is ColdframeError {}
    }
}
