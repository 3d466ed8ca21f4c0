import ColdframeKit
import LinuxSystem
import Logging
import Synchronization

/// An agent with a catalogue and nothing else. Disks and states are what the test puts in.
@AgentActor
final class FakeServices: AgentServices {
    nonisolated let agentName: String? = "web1"
    nonisolated let logger: Logger
    nonisolated let leases = LeaseCount()
    /// By node name: the disk that every snapshot of that node shows.
    private var disks: [String: any BlockDriver] = [:]
    private var states: [String: any VMStateReader] = [:]
    private var sets: [SnapshotSet] = []
    private var observers: [Int: @Sendable @AgentActor ([SnapshotSet]) -> Void] = [:]
    private var nextObserver = 0
    /// Thrown by the next opens.
    var openError: ColdframeError?
    /// Opens wait for the end of this.
    var openDelay: Duration?

    nonisolated init() {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        self.logger = logger
    }

    func put(disk: any BlockDriver, state: (any VMStateReader)? = nil, node: String) {
        disks[node] = disk
        states[node] = state
    }

    func change(_ body: (inout [SnapshotSet]) -> Void) {
        body(&sets)
        for observer in observers.values { observer(sets) }
    }

    /// Adds a set of that tag over the given nodes.
    func save(_ tag: String, nodes: [String], id: String = "1", uuid: String? = nil, date: UInt32 = 1_700_000_000) {
        let members = nodes.map { node in
            SnapshotSet.Member(
                nodeName: node,
                snapshot: SnapshotInfo(
                    id: id, name: tag, vmStateByteCount: states[node]?.byteCount ?? 0, dateSeconds: date,
                    dateNanoseconds: 5, guestClockNanoseconds: 3_000_000_007, diskByteCount: disks[node]?.byteCount ?? 0
                ))
        }
        change { $0.append(SnapshotSet(tag: tag, uuid: uuid, isMixed: false, isComplete: true, members: members)) }
    }

    func delete(_ tag: String) {
        change { $0.removeAll { $0.tag == tag } }
    }

    func fail(opens error: ColdframeError?) { openError = error }
    func delay(opens duration: Duration?) { openDelay = duration }

    func snapshotSets() -> [SnapshotSet] { sets }

    func observeCatalogue(_ observer: @escaping @Sendable @AgentActor ([SnapshotSet]) -> Void) -> any ObservationToken {
        nextObserver += 1
        observers[nextObserver] = observer
        return FakeToken(services: self, number: nextObserver)
    }

    fileprivate func removeObserver(_ number: Int) { observers[number] = nil }

    func openSnapshot(nodeName: String, snapshotID: String, holder: String) async throws -> any SnapshotLease {
        if let openDelay { try await Task.sleep(for: openDelay) }
        if let openError { throw openError }
        guard let disk = disks[nodeName] else { throw ColdframeError(.notFound, "No disk '\(nodeName)'") }
        leases.taken()
        return FakeLease(disk: disk, vmState: states[nodeName], count: leases)
    }
}

/// How many leases are held, and how many were ever taken.
final class LeaseCount: Sendable {
    private let counts = Locked((held: 0, total: 0))
    var held: Int { counts.withLock { $0.held } }
    var total: Int { counts.withLock { $0.total } }
    func taken() {
        counts.withLock {
            $0.held += 1
            $0.total += 1
        }
    }
    func released() { counts.withLock { $0.held -= 1 } }
}

@AgentActor
private final class FakeToken: ObservationToken {
    private let services: FakeServices
    private let number: Int
    init(services: FakeServices, number: Int) {
        self.services = services
        self.number = number
    }
    func cancel() { services.removeObserver(number) }
}

private final class FakeLease: SnapshotLease {
    let disk: any BlockDriver
    let vmState: (any VMStateReader)?
    private let count: LeaseCount
    private let isHeld = Atomic<Bool>(true)
    init(disk: any BlockDriver, vmState: (any VMStateReader)?, count: LeaseCount) {
        self.disk = disk
        self.vmState = vmState
        self.count = count
    }
    func release() {
        if isHeld.exchange(false, ordering: .acquiringAndReleasing) { count.released() }
    }
}
