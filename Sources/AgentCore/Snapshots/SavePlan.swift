import ColdframeKit
import LinuxSystem

/// What a save is going to make: name, date, set.
@AgentActor
struct SavePlan {
    let tag: String
    let uuid: String
    let way: SetRecord.Way
    private let memberCount: Int
    private let seconds: UInt32
    private let nanoseconds: UInt32
    private let images: [Intent.Image]
    /// Whether the guest ran before the save; nil without a guest.
    private let guestWasRunning: Bool?

    init(tag: String, way: SetRecord.Way, devices: SnapshotDevices, guestWasRunning: Bool? = nil) {
        self.tag = tag
        self.way = way
        uuid = UUIDText.generate()
        memberCount = devices.nodes.count
        let now = SystemClock.realtime()
        seconds = UInt32(truncatingIfNeeded: now.seconds)
        nanoseconds = now.nanoseconds
        images = devices.intentImages
        self.guestWasRunning = guestWasRunning
    }

    func record(state: SetRecord.State? = nil) -> SetRecord {
        SetRecord(uuid: uuid, memberCount: memberCount, way: way, state: state)
    }

    /// What each disk's snapshot is to be; ids above `idFloor`.
    func request(idFloor: UInt64) -> SnapshotRequest {
        SnapshotRequest(
            name: tag, dateSeconds: seconds, dateNanoseconds: nanoseconds, annotation: record().bytes, idFloor: idFloor)
    }

    var intent: Intent {
        Intent(uuid: uuid, operation: .save, tag: tag, images: images, guestWasRunning: guestWasRunning)
    }

    /// The intent with what the cut made.
    func intent(with steps: [InternalSnapshotStep]) -> Intent {
        var intent = intent
        for (index, step) in steps.enumerated() where intent.images.indices.contains(index) {
            intent.images[index].snapshot = step.snapshot.map { Intent.Snapshot($0) }
        }
        return intent
    }
}
