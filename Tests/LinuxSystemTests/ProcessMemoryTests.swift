import Glibc
import Testing

@testable import LinuxSystem

/// Of this process, which may look at itself.
@Suite struct ProcessMemoryTests {
    private static let hugePage = Int(ProcessMemory.hugePageByteCount)

    /// Four huge pages' worth of anonymous memory, aligned.
    private static func withMemory(_ body: (UnsafeMutableRawPointer, UInt64) throws -> Void) throws {
        let byteCount = 5 * hugePage
        let mapped = try #require(
            mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        defer { munmap(mapped, byteCount) }
        let aligned = (UInt(bitPattern: mapped) + UInt(hugePage) - 1) / UInt(hugePage) * UInt(hugePage)
        try body(try #require(UnsafeMutableRawPointer(bitPattern: aligned)), UInt64(aligned))
    }

    @Test(.enabled(if: ProcessControl.effectiveUserID == 0, "the page map shows frames to root only"))
    func whatWasOnlyReadIsNotInUse() throws {
        try Self.withMemory { pointer, address in
            pointer.storeBytes(of: 1, as: UInt8.self)
            #expect((pointer + 2 * 4096).load(as: UInt8.self) == 0)
            let memory = try ProcessMemory(processID: ProcessControl.currentPID)
            #expect(try memory.pagesInUse(from: address, count: 4) == [true, false, false, false])
        }
    }

    @Test(.enabled(if: ProcessControl.effectiveUserID == 0, "the page map shows frames to root only"))
    func aCollapsedAreaIsWholeAndInUse() throws {
        try Self.withMemory { pointer, address in
            pointer.storeBytes(of: 0x5A, as: UInt8.self)
            let memory = try ProcessMemory(processID: ProcessControl.currentPID)
            try memory.collapse(address..<(address + ProcessMemory.hugePageByteCount))
            #expect(try memory.pagesInUse(from: address, count: 513) == Array(repeating: true, count: 512) + [false])
            #expect(pointer.load(as: UInt8.self) == 0x5A)
        }
    }

    @Test func areasAreThoseThatAskedForHugePages() throws {
        try Self.withMemory { pointer, address in
            let memory = try ProcessMemory(processID: ProcessControl.currentPID)
            let advice: Int32 = 14  // MADV_HUGEPAGE
            #expect(try !memory.hugePageAreas().contains { $0.contains(address) })
            #expect(madvise(pointer, Self.hugePage, advice) == 0)
            #expect(try memory.hugePageAreas().contains { $0.contains(address) })
        }
    }

    @Test func sharedAndReadOnlyAreasAreLeftOut() {
        let smaps = """
            1000-3000 rw-p 00000000 00:00 0
            Rss:  8 kB
            VmFlags: rd wr mr mw me ac hg
            3000-5000 rw-s 00000000 00:01 7  /dev/zero (deleted)
            VmFlags: rd wr sh mr mw me hg
            5000-7000 r--p 00000000 00:00 0
            VmFlags: rd mr mw me hg
            7000-9000 rw-p 00000000 00:00 0
            VmFlags: rd wr mr mw me ac
            b000-a000 rw-p 00000000 00:00 0
            VmFlags: rd wr hg
            """
        #expect(ProcessMemory.hugePageAreas(inSmaps: smaps) == [0x1000..<0x3000])
        #expect(ProcessMemory.hugePageAreas(inSmaps: "VmFlags: hg wr\n\n: : :").isEmpty)
    }

    @Test func aProcessThatIsGoneIsAnError() {
        #expect(throws: SystemError.self) { try ProcessMemory(processID: Int32.max) }
    }
}
