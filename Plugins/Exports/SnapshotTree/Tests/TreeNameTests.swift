import ColdframeKit
import Testing

@testable import SnapshotTreeExport

struct TreeNameTests {
    @Test(arguments: [
        ("web-1.2", "web-1.2"), ("", "%"), (".", "%2E"), ("..", "%2E."), (".hidden", "%2Ehidden"), ("a/b", "a%2Fb"),
        ("50%", "50%25"), ("\u{0}\n\u{7f}", "%00%0A%7F"), ("ä", "ä"), ("a b", "a b"),
    ])
    func tagsBecomeNames(tag: String, name: String) {
        #expect(TreeName.escaped(tag) == name)
    }

    @Test func reservedNamesAreEscaped() {
        #expect(TreeName.escaped("info.json", reserved: ["info.json"]) == "%69nfo.json")
    }

    @Test func longNamesAreCutAndStayDifferent() {
        let names = ["a", "b"].map { TreeName.escaped(String(repeating: "ü/", count: 200) + $0) }
        #expect(names[0] != names[1])
        #expect(names.allSatisfy { $0.utf8.count <= 255 && $0.contains("%~") })
    }

    @Test func takenNamesGetNumbers() {
        #expect(TreeName.unique("a", taken: ["a", "a%~2"]) == "a%~3")
    }

    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"), (4_294_967_295, "2106-02-07T06:28:15Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
        ] as [(Int64, String)])
    func datesAreRight(seconds: Int64, text: String) {
        #expect(SnapshotDescription.date(TreeDate(seconds: seconds, nanoseconds: 0)) == text)
    }
}
