import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

/// A driver of the agent that is opened and tested without knowing it.
protocol DriverUnderTest: Sendable, CustomTestStringConvertible {
    var name: String { get }
}

extension DriverUnderTest {
    var testDescription: String { name }
}

func failure(_ driver: any DriverUnderTest, _ what: String) -> ColdframeError {
    ColdframeError(.corrupt, "\(driver.name) \(what)")
}

func expectRefused(_ driver: any DriverUnderTest, _ what: String, _ body: () throws -> Void) throws {
    do { try body() } catch let error as ColdframeError {
        guard !error.message.isEmpty else { throw failure(driver, "refuses \(what) without a word") }
        return
    }
    throw failure(driver, "does not refuse \(what)")
}

/// The disk is read to its last byte, and not behind it.
func checkSize(_ driver: any DriverUnderTest, _ node: BlockNode) throws {
    let size = node.byteCount
    _ = try node.driver.readBytes(size - 1, 1)
    _ = try node.driver.readBytes(size, 0)
    try expectRefused(driver, "a read behind the end") {
        var byte = [UInt8](repeating: 0, count: 1)
        try byte.withUnsafeMutableBytes { try node.read(into: $0, at: size) }
    }
}

/// Extents lie in order, without gaps, end where the range does, and call nothing zero that is not.
func checkExtents(_ driver: any DriverUnderTest, _ node: BlockNode) throws {
    let size = node.byteCount
    if !node.isReadOnly { try node.driver.writeBytes([1], at: size / 2) }
    var next: UInt64 = 0
    while next < size {
        let extents = try node.extents(at: next, byteCount: size - next, limit: 2)
        guard !extents.isEmpty, extents.count <= 2 else { throw failure(driver, "gives \(extents.count) extents") }
        for extent in extents {
            guard extent.offset == next, extent.byteCount > 0, extent.end <= size else {
                throw failure(driver, "gives the extent \(extent) at \(next) of \(size)")
            }
            if case .zero = extent.kind,
                try node.driver.readBytes(extent.offset, Int(extent.byteCount)).contains(where: { $0 != 0 })
            {
                throw failure(driver, "calls data zero in \(extent)")
            }
            next = extent.end
        }
    }
}

/// As many threads as the driver says it takes; the node serialises them if it says one. The disk has a MiB at least.
func checkThreads(_ driver: any DriverUnderTest, _ node: BlockNode) throws {
    let threads = try (0..<4).map { number in
        try SystemThread.start(name: "conformance") {
            // Unaligned neighbours: every cluster is written by all.
            for index in 0..<64 {
                let bytes = [UInt8](repeating: UInt8(number + 1), count: 4000)
                try? bytes.withUnsafeBytes { try node.write($0, at: UInt64((index * 4 + number) * 4000)) }
            }
        }
    }
    for thread in threads { thread.join() }
    for piece in 0..<256 {
        let expected = [UInt8](repeating: UInt8(piece % 4 + 1), count: 4000)
        guard try node.driver.readBytes(UInt64(piece * 4000), 4000) == expected else {
            throw failure(driver, "lost a write of one of several threads at \(piece * 4000)")
        }
    }
}

/// Nothing is written through a read-only node.
func checkReadOnly(_ driver: any DriverUnderTest, _ node: BlockNode) throws {
    guard node.isReadOnly else { throw failure(driver, "was opened read-only and is not") }
    try expectRefused(driver, "a write to a read-only node") {
        try [UInt8]([1]).withUnsafeBytes { try node.write($0, at: 0) }
    }
    try expectRefused(driver, "zeroing a read-only node") { try node.writeZeroes(at: 0, byteCount: 1) }
    if let bearer = node.driver as? any SnapshotBearing {
        try expectRefused(driver, "a snapshot of a read-only node") {
            _ = try bearer.createSnapshot(SnapshotRequest(name: "a", dateSeconds: 0, dateNanoseconds: 0))
        }
    }
}
