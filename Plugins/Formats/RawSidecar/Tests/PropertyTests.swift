import ColdframeKit
import ConformanceKit
import LinuxSystem
import Testing

@testable import RawSidecarFormat

/// Random operations; a plain model and the raw file must agree with the image after each.
@Suite struct PropertyTests {
    @Test func randomOperationsAgreeWithTheModel() throws {
        let campaign = PropertyCampaign(subject: .rawSidecar(), byteCount: 1 << 20, defaultRuns: 10)
        try campaign.run { image, model in
            // The raw file is the disk, at any time and for every other tool.
            try image.contents()["disk.raw"] == model.disk ? nil : "the raw file is not the disk"
        }
    }
}
