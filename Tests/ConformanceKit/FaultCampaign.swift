import ColdframeKit
import LinuxSystem

/// Fails the n-th write, flush or resize of one of the image's files, for every n of an operation: the operation is done
/// or not, never halfway, and the image goes on working.
public struct FaultCampaign: Sendable {
    let subject: DiskSubject
    let byteCount: Int
    /// What is done before without faults.
    let preparation: [DiskOperation]

    public init(subject: DiskSubject, byteCount: Int, preparation: [DiskOperation]) {
        self.subject = subject
        self.byteCount = byteCount
        self.preparation = preparation
    }

    /// - Parameter stride: 1 fails every call in turn; more, every so many.
    /// - Returns: how many calls the operation made that could be failed.
    @discardableResult
    public func run(_ operation: DiskOperation, failing file: String, andAllAfter: Bool = false, stride: Int = 1) throws
        -> Int
    {
        let after = try expected(after: operation)
        for call in Swift.stride(from: 0, to: 500, by: stride) {
            do {
                if try !runOnce(operation, file, call, andAllAfter, after) { return call }
            } catch {
                throw ColdframeError(wrapping: error).prefixed(
                    "\(subject.name): call \(call) of '\(file)' failed in \(operation)")
            }
        }
        throw ColdframeError(.corrupt, "\(operation) makes more than 500 calls")
    }

    /// False if the operation made fewer calls.
    private func runOnce(
        _ operation: DiskOperation, _ file: String, _ call: Int, _ andAllAfter: Bool, _ after: DiskModel
    ) throws -> Bool {
        let image = try SubjectImage(subject, byteCount: UInt64(byteCount), storage: .memory)
        var faulty: FaultyDriver?
        var driver = try subject.open(
            try image.nodes {
                guard $0 == file else { return $1 }
                let driver = FaultyDriver($1)
                faulty = driver
                return driver
            }, false)
        guard let faulty else { throw ColdframeError(.notFound, "'\(file)' is no file of the image") }
        var model = DiskModel(byteCount: byteCount)
        for operation in preparation { try model.apply(operation, to: &driver) { $0 } }
        let before = model
        faulty.fail(call: call, andAllAfter: andAllAfter)
        var failure: (any Error)?
        do { try model.apply(operation, to: &driver) { $0 } } catch { failure = error }
        let wasReached = faulty.callCount > call
        faulty.heal()
        if failure == nil {
            if let difference = try model.difference(from: driver) { throw ColdframeError(.corrupt, difference) }
        } else {
            try check(driver, [before, model, after], operation)
        }
        if !andAllAfter {
            // One failure is survived: the image takes more.
            try driver.writeBytes([1, 2, 3], at: 7)
            guard try driver.readBytes(7, 3) == [1, 2, 3] else {
                throw ColdframeError(.corrupt, "a later write is lost")
            }
            try driver.close()
        }
        return wasReached
    }

    /// The model after the operation, from a run without faults.
    private func expected(after operation: DiskOperation) throws -> DiskModel {
        let image = try SubjectImage(subject, byteCount: UInt64(byteCount), storage: .memory)
        var driver = try image.open()
        var model = DiskModel(byteCount: byteCount)
        for operation in preparation + [operation] { try model.apply(operation, to: &driver) { $0 } }
        return model
    }

    private func check(_ driver: any BlockDriver, _ models: [DiskModel], _ operation: DiskOperation) throws {
        var differences: [String] = []
        for model in models {
            switch operation {
            case .write, .zero, .discard:
                // Parts of it may have been carried out.
                guard let difference = try model.snapshotDifference(from: driver) else { return }
                differences.append(difference)
            default:
                guard let difference = try model.difference(from: driver) else { return }
                differences.append(difference)
            }
        }
        throw ColdframeError(.corrupt, "neither old nor new: \(differences.joined(separator: "; "))")
    }
}
