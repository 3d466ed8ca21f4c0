import ColdframeKit
import ConformanceKit
import QAPI
import QMPWire
import Synchronization

/// Decides which requests of a simulation fail: one in so many, by a seed.
final class FaultDice: Sendable {
    private let state: Atomic<UInt64>
    /// 0 for none.
    private let oneIn = Atomic<UInt64>(0)

    init(seed: UInt64) { state = Atomic(seed | 1) }

    func setRate(oneIn count: UInt64) { oneIn.store(count, ordering: .relaxed) }

    func roll() throws(ColdframeError) {
        let count = oneIn.load(ordering: .relaxed)
        guard count > 0 else { return }
        let (_, number) = state.wrappingAdd(0x9E37_79B9_7F4A_7C15, ordering: .relaxed)
        let mixed = (number ^ (number >> 31)) &* 0xBF58_476D_1CE4_E5B9
        if (mixed >> 33) % count == 0 { throw ColdframeError(.io, "A request was told to fail") }
    }
}

/// The driver `flaky`: a filter below formats whose requests fail now and then.
struct FlakyBranch: QAPIObjectValue, Equatable {
    var file: BlockdevRef

    init(members input: inout QAPIObjectInput) throws(QMPError) { file = try input.required("file") }

    func write(to object: inout JSONObject) { object["file"] = file.json }

    static let fragment = SchemaFragment(
        name: "flaky", openUnions: [], openValues: [],
        branches: [
            .init(union: "BlockdevOptions", value: "flaky", typeName: "FlakyBranch", type: FlakyBranch.self)
        ], commands: [], events: [], introspection: "[]")
}

struct FlakyFactory: BlockDriverFactory {
    let driverName = "flaky"
    let isFormat = false
    let isFilter = true
    let dice: FaultDice

    func open(_ options: BlockdevOptions, context: any OpenContext) async throws -> any BlockDriver {
        guard let branch = options.branch as? FlakyBranch else {
            throw ColdframeError(.invalidArgument, "Driver 'flaky' was given options of another driver")
        }
        return FlakyDriver(child: try await context.child("file", branch.file, role: .filtered), dice: dice)
    }
}

private final class FlakyDriver: BlockDriver, Resizable {
    let driverName = "flaky"
    let threadModel = ThreadModel.parallel
    private let child: BlockNode
    private let dice: FaultDice

    init(child: BlockNode, dice: FaultDice) {
        self.child = child
        self.dice = dice
    }

    var byteCount: UInt64 { child.byteCount }
    var isReadOnly: Bool { child.isReadOnly }
    var displayFilename: String { child.driver.displayFilename }
    func information() throws(ColdframeError) -> BlockInformation { try child.driver.information() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ColdframeError) {
        try dice.roll()
        try child.direct.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try dice.roll()
        try child.direct.write(buffer, at: offset, flags: flags)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, flags: WriteFlags) throws(ColdframeError) {
        try dice.roll()
        try child.direct.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
    }

    func discard(at offset: UInt64, byteCount: UInt64) throws(ColdframeError) {
        try child.direct.discard(at: offset, byteCount: byteCount)
    }

    func flush() throws(ColdframeError) { try child.direct.flush() }

    func extents(at offset: UInt64, byteCount: UInt64, limit: Int) throws(ColdframeError) -> [Extent] {
        try child.direct.extents(at: offset, byteCount: byteCount, limit: limit)
    }

    func resize(toByteCount byteCount: UInt64) throws(ColdframeError) {
        guard let driver = child.driver as? any Resizable else {
            throw ColdframeError(.unsupported, "The file is not resizable")
        }
        try driver.resize(toByteCount: byteCount)
    }

    func close() throws(ColdframeError) {}
}
