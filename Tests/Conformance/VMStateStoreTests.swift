import ColdframeKit
import ConformanceKit
import LinuxSystem
import QAPI
import QMPWire
import Testing

/// One kind of vmstate store; where it takes a path, that of a folder of the test's.
struct StoreUnderTest: DriverUnderTest {
    let factory: any VMStateStoreFactory
    private let members: [String]
    var name: String { factory.driverName }

    /// All stores of all modules that need no more than a path.
    static let all: [StoreUnderTest] = ModulesUnderTest.all.flatMap(\.vmStateStores).compactMap {
        guard let sample = SampleOptions(union: "VMStateStoreOptions", value: $0.driverName),
            sample.nodes.isEmpty, sample.others.map(\.name).allSatisfy({ $0 == "path" })
        else {
            print("\($0.driverName): a store that needs more than a path has its tests in its own folder")
            return nil
        }
        return StoreUnderTest(factory: $0, members: sample.others.map(\.name))
    }

    func open(_ folder: String) throws -> any VMStateStore {
        var options: JSONObject = ["driver": .string(name), "id": "s"]
        for member in members { options[member] = .string(folder) }
        return try waitFor { @AgentActor [options] in
            try await factory.open(VMStateStoreOptions(QAPIInput(.object(options))))
        }
    }

    /// Runs `body` with an empty store, which it may close; nothing if it does not write, which it then says in words.
    func withStore(_ body: @escaping @Sendable (_ store: any VMStateStore, _ folder: String) throws -> Void)
        async throws
    {
        try await onBlockingThread {
            let folder = try ToolFolder()
            let path = try Files.canonicalPath(folder.directory) + "/store"
            try Files.mkdir(path)
            let store = try open(path)
            do { try store.begin(StoreContent.label(0xFFF)).abandon() } catch let error as ColdframeError {
                guard error.code == .unsupported, !error.message.isEmpty else { throw error }
                return
            }
            try body(store, path)
        }
    }
}

/// What every store keeps to; a module that is added to the list is tested without a word here.
@Suite(.serialized) struct VMStateStoreTests {
    @Test(arguments: StoreUnderTest.all) func whatWasStoredIsRead(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, _ in
            for (number, count) in [0, 1, 4096, 100_001].enumerated() {
                let (label, bytes) = (StoreContent.label(number), StoreContent.bytes(number, count: count))
                let state = try StoreContent.save(label, bytes, to: store)
                let checksum = bytes.withUnsafeBytes { StoreContent.crc32c(0, $0) }
                guard
                    state
                        == StoredVMState(
                            label: label, byteCount: UInt64(count), checksum: checksum, guestClockNanoseconds: 77),
                    try store.condition(of: label.setID) == .whole(state), try store.open(label.setID).state == state,
                    try StoreContent.load(label.setID, from: store) == bytes
                else { throw failure(tested, "has another state than \(state) was stored as") }
                try expectRefused(tested, "a read behind the end") {
                    var byte: UInt8 = 0
                    let reader = try store.open(label.setID)
                    try withUnsafeMutableBytes(of: &byte) { try reader.read(into: $0, at: UInt64(count)) }
                }
            }
            guard try store.list().states.map(\.byteCount) == [0, 1, 4096, 100_001] else {
                throw failure(tested, "does not list what it has in the order of its UUIDs")
            }
        }
    }

    @Test(arguments: StoreUnderTest.all) func whatIsNotCommittedIsNotThere(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, folder in
            let label = StoreContent.label(1)
            let writer = try store.begin(label)
            try StoreContent.append([1, 2, 3], to: writer)
            guard try store.condition(of: label.setID) == .unfinished, try store.list().states.isEmpty else {
                throw failure(tested, "shows a state that is not committed")
            }
            try expectRefused(tested, "a second writer of a set") { _ = try store.begin(label) }
            try expectRefused(tested, "to read what is not committed") { _ = try store.open(label.setID) }
            try writer.abandon()
            guard try store.condition(of: label.setID) == .absent else { throw failure(tested, "keeps the abandoned") }
            // An agent that was killed: the next one finds it by its UUID.
            let orphan = try store.begin(label)
            try StoreContent.append([1], to: orphan)
            store.close()
            let next = try tested.open(folder)
            defer { next.close() }
            guard next.identity == store.identity else { throw failure(tested, "is another store than before") }
            guard try next.condition(of: label.setID) == .unfinished else { throw failure(tested, "forgot a state") }
            for _ in 0..<2 { try next.discard(label.setID) }
            guard try next.condition(of: label.setID) == .absent else { throw failure(tested, "keeps the discarded") }
            try StoreContent.save(label, [5], to: next)
        }
    }

    @Test(arguments: StoreUnderTest.all) func aReaderOutlivesItsState(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, _ in
            let bytes = StoreContent.bytes(1, count: 50_000)
            let label = StoreContent.label(1)
            try StoreContent.save(label, bytes, to: store)
            let reader = try store.open(label.setID)
            try store.discard(label.setID)
            try reader.verify(StoreContent.crc32c)
            try expectRefused(tested, "a state that was discarded") { _ = try store.open(label.setID) }
        }
    }

    @Test(arguments: StoreUnderTest.all) func aStoreIsOneAgents(tested: StoreUnderTest) async throws {
        try await tested.withStore { _, folder in
            try expectRefused(tested, "a second agent") { try tested.open(folder).close() }
        }
    }

    @Test(arguments: StoreUnderTest.all) func noTagLeadsAnywhere(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, folder in
            let around = try Files.listDirectory(Files.parentDirectory(of: folder))
            let tags = [
                "", ".", "..", "../../x", "/etc/passwd", "a/b", "new\nline", "\u{1B}[2J", "ü😀", "%41", "a.b.vmstate",
                String(repeating: "long ", count: 200),
            ]
            for (number, tag) in tags.enumerated() {
                let label = StoreContent.label(number, tag: tag)
                try StoreContent.save(label, [UInt8(number)], to: store)
                guard try store.open(label.setID).state.label == label else {
                    throw failure(tested, "has another label than '\(tag)'")
                }
            }
            guard try store.list().states.map(\.label.tag) == tags else { throw failure(tested, "lost a tag") }
            for setID in [
                "", "../../../etc/passwd", "00000000-0000-4000-8000-00000000000G", StoreContent.label(1).setID + "/",
            ] {
                var label = StoreContent.label(1)
                label.setID = setID
                try expectRefused(tested, "the set '\(setID)'") { _ = try store.begin(label) }
                try expectRefused(tested, "to discard '\(setID)'") { try store.discard(setID) }
            }
            try expectRefused(tested, "a tag that is too long") {
                _ = try store.begin(StoreContent.label(99, tag: String(repeating: "x", count: 1024)))
            }
            guard try Files.listDirectory(Files.parentDirectory(of: folder)) == around else {
                throw failure(tested, "wrote outside its folder")
            }
        }
    }

    @Test(arguments: StoreUnderTest.all) func aFailedCallIsAnErrorAndNoState(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, _ in
            let bytes = StoreContent.bytes(2, count: 20_000)
            try StoreContent.save(StoreContent.label(1), bytes, to: store)
            for n in 1...200 {
                let label = StoreContent.label(2)
                SystemCallFaults.inject(onCall: n, errno: Errno.noSpace)
                let outcome = Result { try StoreContent.save(label, bytes, to: store) }
                let isOver = SystemCallFaults.callCount < n
                SystemCallFaults.clear()
                switch (outcome, try store.condition(of: label.setID)) {
                case (.success, .whole), (.failure, .absent), (.failure, .unfinished): break
                case (.failure, .whole):
                    guard try StoreContent.load(label.setID, from: store) == bytes else {
                        throw failure(tested, "has a wrong state after call \(n) failed")
                    }
                case (.success, let condition): throw failure(tested, "says that \(condition) is stored, call \(n)")
                }
                if case .failure(let error) = outcome, !(error is ColdframeError) { throw error }
                try store.discard(label.setID)
                guard try StoreContent.load(StoreContent.label(1).setID, from: store) == bytes else {
                    throw failure(tested, "damaged another state when call \(n) failed")
                }
                if isOver { return }
            }
            throw failure(tested, "made more than 200 calls for a small state")
        }
    }

    /// kill -9 after every change of a file, and power loss: a state is whole or not there, and another one stays.
    @Test(arguments: StoreUnderTest.all) func aCrashLeavesItWholeOrNotThere(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, folder in
            let old = StoreContent.bytes(1, count: 9_000)
            let new = StoreContent.bytes(2, count: 20_000)
            let (oldID, newID) = (StoreContent.label(1).setID, StoreContent.label(2).setID)
            try StoreContent.save(StoreContent.label(1), old, to: store)
            let recorder = try CrashRecorder(folder: folder)
            try StoreContent.save(StoreContent.label(2), new, to: store)
            let committed = recorder.position
            try store.discard(oldID)
            let discarded = recorder.position
            let log = recorder.finish()
            store.close()

            @Sendable func check(_ tree: FileTree, _ count: Int, _ what: String) throws {
                try tree.write(to: folder)
                let store = try tested.open(folder)
                defer { store.close() }
                for (setID, bytes) in [(oldID, old), (newID, new)] {
                    switch try store.condition(of: setID) {
                    case .whole:
                        guard try StoreContent.load(setID, from: store) == bytes else {
                            throw failure(tested, "has a wrong state after \(what) at \(count)")
                        }
                    case .absent, .unfinished:
                        let isWanted = setID == oldID ? count <= committed : count >= committed
                        if isWanted { throw failure(tested, "lost a state by \(what) at \(count)") }
                    }
                }
                if count >= discarded, try store.condition(of: oldID) != .absent {
                    throw failure(tested, "has a discarded state again after \(what)")
                }
                try store.discard(newID)
                guard try store.condition(of: newID) == .absent else { throw failure(tested, "keeps the discarded") }
            }
            guard log.changes.count >= 4 else { throw failure(tested, "has nothing to crash in") }
            var generator = SeededGenerator(seed: 5)
            for count in 0...log.changes.count {
                try check(log.kill(after: count), count, "a kill")
                for _ in 0..<8 { try check(log.powerLoss(after: count, using: &generator), count, "a power loss") }
            }
        }
    }

    /// A file of the store is damaged: an error, or the state as it was; never another state, never a crash.
    @Test(arguments: StoreUnderTest.all) func damageIsNoticed(tested: StoreUnderTest) async throws {
        try await tested.withStore { store, folder in
            let bytes = StoreContent.bytes(1, count: 10_000)
            let setID = StoreContent.label(1).setID
            try StoreContent.save(StoreContent.label(1), bytes, to: store)
            store.close()
            let whole = try FileTree(reading: folder)
            for seed in 0..<150 as Range<UInt64> {
                var generator = SeededGenerator(seed: seed)
                try whole.write(to: folder)
                let path = whole.names.keys.sorted().randomElement(using: &generator)!
                var content = try Files.readAll(path)
                let limit = Bool.random(using: &generator) ? min(content.count, 100) : content.count
                let place = Int.random(in: 0..<limit, using: &generator)
                if seed % 4 == 0 {
                    content.removeLast(content.count - place)
                } else {
                    content[place] ^= UInt8.random(in: 1...255, using: &generator)
                }
                try Descriptor.open(path, [.writeOnly, .truncate]).writeAll(content)
                var isAsItWas = true
                do {
                    let store = try tested.open(folder)
                    defer { store.close() }
                    isAsItWas = try StoreContent.load(setID, from: store) == bytes && store.list().states.count == 1
                } catch let error as ColdframeError {
                    guard !error.message.isEmpty else { throw failure(tested, "fails without a word, seed \(seed)") }
                }
                guard isAsItWas else { throw failure(tested, "shows another state after damage with seed \(seed)") }
            }
        }
    }
}
