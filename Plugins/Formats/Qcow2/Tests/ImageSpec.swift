import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import Qcow2Format

/// What a test image is made like, by us or by `qemu-img`: any combination that the format allows.
struct ImageSpec: CustomStringConvertible {
    var options: Qcow2Create.Options
    var hasDataFile = false
    var isMadeByQEMU = false
    /// Length and seed of a raw backing file's content.
    var base: (byteCount: Int, seed: UInt64)?
    var hasBitmaps = false

    static func random(_ generator: inout SeededGenerator) -> ImageSpec {
        func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &generator) < percent }
        let clusterByteCount = UInt64(512) << UInt64.random(in: 0...(chance(10) ? 12 : 9), using: &generator)
        let limit = clusterByteCount < 4096 ? 512 : 4096
        var options = Qcow2Create.Options(diskByteCount: UInt64(512 * Int.random(in: 1...limit, using: &generator)))
        options.clusterByteCount = clusterByteCount
        if chance(15) {
            options.version = 2
        } else {
            options.refcountBits = 1 << UInt64.random(in: chance(20) ? 0...2 : 3...6, using: &generator)
            options.hasExtendedL2 = clusterByteCount >= 16384 && chance(60)
            options.compressesWithZstd = chance(40)
            options.hasLazyRefcounts = chance(10)
        }
        var spec = ImageSpec(options: options)
        if options.version == 3, chance(20) {
            spec.hasDataFile = true
            spec.options.isDataFileRaw = chance(50)
        }
        if chance(25), let mode = Qcow2Create.Preallocation.allCases.randomElement(using: &generator) {
            spec.options.preallocation = mode
        }
        spec.isMadeByQEMU = chance(40)
        spec.hasBitmaps = options.version == 3 && chance(40)
        if !spec.options.isDataFileRaw, spec.options.preallocation == .off, chance(30) {
            let count = 512 * Int.random(in: 1...2 * Int(options.diskByteCount / 512), using: &generator)
            spec.base = (count, generator.next())
        }
        return spec
    }

    var description: String {
        (isMadeByQEMU ? "by qemu-img, " : "") + "size \(options.diskByteCount), " + qemuOptions("DATA")
            + (base.map { ", over \($0.byteCount) bytes of seed \($0.seed)" } ?? "")
    }

    private func qemuOptions(_ dataFile: String) -> String {
        var words = [
            "compat=\(options.version == 2 ? "0.10" : "1.1")", "cluster_size=\(options.clusterByteCount)",
            "refcount_bits=\(options.refcountBits)", "preallocation=\(options.preallocation.rawValue)",
        ]
        if options.hasExtendedL2 { words.append("extended_l2=on") }
        if options.compressesWithZstd { words.append("compression_type=zstd") }
        if options.hasLazyRefcounts { words.append("lazy_refcounts=on") }
        if hasDataFile { words.append("data_file=\(dataFile),data_file_raw=\(options.isDataFileRaw ? "on" : "off")") }
        return words.joined(separator: ",")
    }

    /// Makes the image at `path`, with its data file beside it.
    func make(_ fixture: ImageFixture, _ path: String) throws {
        let dataPath = path + ".data"
        var options = options
        if let base {
            let file = try Descriptor.open(path + ".base", [.writeOnly, .create, .truncate])
            try file.writeAll(pattern(base.byteCount, base.seed))
            file.close()
            options.backingFilename = path + ".base"
            options.backingFormat = "raw"
        }
        if isMadeByQEMU {
            try fixture.run(
                "qemu-img",
                ["create", "-q", "-f", "qcow2", "-o", qemuOptions(dataPath)]
                    + (base == nil ? [] : ["-b", path + ".base", "-F", "raw"]) + [path, "\(options.diskByteCount)"])
            return
        }
        let node = try fileNode(path, creates: true)
        let dataFile = hasDataFile ? try fileNode(dataPath, creates: true) : nil
        try Qcow2Create.write(options, into: node, dataFile: dataFile)
        try node.driver.close()
        try dataFile?.driver.close()
    }

    func open(_ path: String, on node: BlockNode? = nil) throws -> Qcow2Driver {
        let image = try Qcow2Image.read(try node ?? fileNode(path))
        let backing = try base.map { _ in try fileNode(path + ".base", isReadOnly: true) }
        return try Qcow2Driver(
            image, backing: backing, dataFile: hasDataFile ? try fileNode(path + ".data") : nil, options: .init())
    }

    var model: ImageModel {
        var disk = [UInt8](repeating: 0, count: Int(options.diskByteCount))
        if let base {
            let shown = pattern(base.byteCount, base.seed).prefix(disk.count)
            disk.replaceSubrange(0..<shown.count, with: shown)
        }
        return ImageModel(
            disk: disk, clusterByteCount: Int(options.clusterByteCount), hasSnapshots: !hasDataFile,
            hasNarrowRefcounts: options.refcountBits < 8, isOld: options.version == 2,
            backingByteCount: base?.byteCount ?? 0, bitmaps: hasBitmaps ? [:] : nil)
    }
}
