import Glibc
import LinuxSystem
import Qcow2Fuzzing

/// libFuzzer's entry; compiled by `tools/fuzz` with -sanitize=fuzzer.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    Qcow2Fuzz.run(UnsafeBufferPointer(start: bytes, count: count))
    return 0
}

/// Writes the seeds into the folder that COLDFRAME_SEEDS names before the first input.
@_cdecl("LLVMFuzzerInitialize")
public func initializeFuzzer(_ count: UnsafePointer<CInt>, _ words: UnsafeRawPointer) -> CInt {
    guard let folder = getenv("COLDFRAME_SEEDS").map({ String(cString: $0) }) else { return 0 }
    do {
        for (name, image) in try Qcow2Seeds.all() {
            for purpose in Qcow2Fuzz.Purpose.allCases {
                let file = try Descriptor.open("\(folder)/\(name)-\(purpose)", [.writeOnly, .create, .truncate])
                try file.writeAll([purpose.rawValue] + image)
                file.close()
            }
        }
    } catch { fatalError("the seeds can't be written: \(error)") }
    return 0
}
