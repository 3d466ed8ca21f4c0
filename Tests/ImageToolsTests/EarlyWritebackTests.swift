import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import ImageTools

/// A copy has its target written while it goes on, and is whole for all that.
@Suite struct EarlyWritebackTests {
    private final class Target: Filtering, WritebackStarting {
        let driverName = "target"
        let threadModel = ThreadModel.parallel
        let shown: BlockNode
        let startCount = Locked(0)

        init(_ shown: BlockNode) { self.shown = shown }

        func startWriteback() { startCount.withLock { $0 += 1 } }
    }

    @Test func theHostWritesWhileThereIsMoreToCopy() throws {
        let (from, to) = (MemoryFile(), MemoryFile())
        let byteCount = 33 << 20
        var content = SeededGenerator.bytes(byteCount, seed: 1)
        content.replaceSubrange(5 << 20..<10 << 20, with: repeatElement(0, count: 5 << 20))
        from.replace(with: content)
        to.replace(with: [UInt8](repeating: 0, count: byteCount))
        let target = Target(BlockNode(name: "memory", driver: to))
        var options = ImageCopy.Options()
        options.workerCount = 3
        try ImageCopy.run(
            from: BlockNode(name: "source", driver: from), to: BlockNode(name: "target", driver: target), options
        ) { _ in }
        #expect(to.bytes == content)
        // Each 8 MiB once, whichever thread has copied them.
        #expect(target.startCount.withLock { $0 } == byteCount / (8 << 20))
    }
}
