import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import CompressFilter

/// What only this filter does; what every filter must do is tested by Tests/Conformance, without a word here.
@Suite struct CompressDriverTests {
    private static let unit: UInt64 = 4096
    private let file = MemoryFile()

    private func filter(byteCount: Int) -> CompressDriver {
        file.replace(with: [UInt8](repeating: 7, count: byteCount))
        return CompressDriver(
            BlockNode(name: "file", driver: CompressibleDriver(file, unitByteCount: Self.unit)),
            unitByteCount: Self.unit, isReadOnly: false)
    }

    /// Beginnings and ends in, at and around units, on a disk that ends within one.
    @Test func eachRangeIsStoredInWholeUnits() throws {
        let size = 3 * 4096 + 100
        let edges = [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 12287, 12288, 12289, size - 1, size]
        for start in edges {
            for end in edges where end > start {
                let filter = filter(byteCount: size)
                try filter.writeBytes([UInt8](repeating: 9, count: end - start), at: UInt64(start))
                let expected = (0..<size).map { (start..<end).contains($0) ? UInt8(9) : 7 }
                #expect(file.bytes == expected, "\(start)..<\(end)")
            }
        }
    }

    /// Each thread has bytes of its own in every unit.
    @Test func writersOfOneUnitDoNotUndoOneAnother() throws {
        let size = 4 * 4096
        let filter = filter(byteCount: size)
        let failures = Locked<[String]>([])
        let threads = try (0..<4).map { index in
            try SystemThread.start(name: "writer") {
                do {
                    for round in 1...50 {
                        for unit in 0..<4 {
                            let offset = UInt64(unit * 4096 + index * 1024)
                            try filter.writeBytes([UInt8](repeating: UInt8(round), count: 1024), at: offset)
                            guard try filter.readBytes(offset, 1024) == [UInt8](repeating: UInt8(round), count: 1024)
                            else { throw ColdframeError(.io, "the write of round \(round) at \(offset) is undone") }
                        }
                    }
                } catch { failures.withLock { $0.append("\(error)") } }
            }
        }
        for thread in threads { thread.join() }
        #expect(failures.withLock { $0 } == [])
        #expect(file.bytes == [UInt8](repeating: 50, count: size))
    }
}
