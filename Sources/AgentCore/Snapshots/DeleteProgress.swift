import ColdframeKit

/// A delete's progress in bytes of all its disks, and its end while no disk has changed yet. Any thread.
struct DeleteProgress: Sendable {
    private let byteCounts: [UInt64]
    private let control: any JobControl

    init(_ byteCounts: [UInt64], _ control: any JobControl) {
        self.byteCounts = byteCounts.map { max(1, $0) }
        self.control = control
    }

    func ofDisk(_ index: Int) -> OfDisk {
        let before = byteCounts[..<index].reduce(0, Self.sum)
        return OfDisk(
            control: control, before: before, byteCount: byteCounts[index], total: byteCounts.reduce(0, Self.sum),
            mayEnd: index == 0)
    }

    /// Sizes come from images.
    private static func sum(_ a: UInt64, _ b: UInt64) -> UInt64 {
        min(UInt64(Int64.max), a &+ min(b, UInt64(Int64.max)))
    }

    struct OfDisk: Sendable {
        fileprivate let control: any JobControl
        fileprivate let before: UInt64
        fileprivate let byteCount: UInt64
        fileprivate let total: UInt64
        fileprivate let mayEnd: Bool

        func set(_ done: UInt64, of whole: UInt64) throws(ColdframeError) {
            if mayEnd, control.isCancelled { throw ColdframeError(.cancelled, "Operation canceled") }
            guard whole > 0, done < whole else { return }
            let share = byteCount.multipliedFullWidth(by: done)
            control.setProgress(
                current: min(total, before &+ whole.dividingFullWidth(share).quotient), total: total)
        }

        func finish() { control.setProgress(current: min(total, before &+ byteCount), total: total) }
    }
}
