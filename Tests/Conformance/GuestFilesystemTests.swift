import ColdframeKit
import ConformanceKit
import Testing

/// One family of guest filesystems, on a volume that `mkfs` made.
struct FilesystemUnderTest: DriverUnderTest {
    let factory: any GuestFilesystemFactory
    var name: String { factory.typeName }

    static let all: [FilesystemUnderTest] = ModulesUnderTest.all.flatMap(\.guestFilesystems).map {
        FilesystemUnderTest(factory: $0)
    }

    func campaign() throws -> FilesystemCampaign {
        FilesystemCampaign(factory, try FilesystemSample(type: factory.typeName))
    }
}

/// What every guest filesystem keeps to; a module that is added to the list is tested without a word here.
@Suite struct GuestFilesystemTests {
    @Test(arguments: FilesystemUnderTest.all) func allIsThere(filesystem: FilesystemUnderTest) async throws {
        try await onBlockingThread { try filesystem.campaign().runWhole() }
    }

    @Test(arguments: FilesystemUnderTest.all) func strangersAreNotRecognised(
        filesystem: FilesystemUnderTest
    ) async throws {
        try await onBlockingThread { try filesystem.campaign().runStrangers() }
    }

    @Test(arguments: FilesystemUnderTest.all) func aShortVolumeIsAnErrorOrWhatIsLeft(
        filesystem: FilesystemUnderTest
    ) async throws {
        try await onBlockingThread { try filesystem.campaign().runShort() }
    }

    @Test(arguments: FilesystemUnderTest.all) func aFailedReadIsAnErrorAndPasses(
        filesystem: FilesystemUnderTest
    ) async throws {
        try await onBlockingThread { try filesystem.campaign().runFaults() }
    }

    @Test(arguments: FilesystemUnderTest.all) func severalThreadsSeeTheSame(
        filesystem: FilesystemUnderTest
    ) async throws {
        try await onBlockingThread { try filesystem.campaign().runThreads() }
    }

    @Test(arguments: FilesystemUnderTest.all) func aDamagedVolumeIsAnErrorAndNeverACrash(
        filesystem: FilesystemUnderTest
    ) async throws {
        try await onBlockingThread { try filesystem.campaign().runFuzz() }
    }

    @Test func namesOfOneFamilyAreUnique() {
        let names = FilesystemUnderTest.all.map(\.name)
        #expect(Set(names).count == names.count)
    }
}
