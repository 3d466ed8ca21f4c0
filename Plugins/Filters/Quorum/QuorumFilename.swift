import ColdframeKit
import QMPWire

extension QuorumDriver {
    /// As QEMU writes it, with the children's files; options of what lies between are not known here.
    var displayFilename: String {
        var object: JSONObject = [
            "children": .array(children.map { Self.description(of: $0.node.driver) }), "driver": .string(driverName),
            "vote-threshold": JSONValue(UInt64(settings.threshold)),
        ]
        if settings.verifies { object["blkverify"] = true }
        if settings.rewritesCorrupted { object["rewrite-corrupted"] = true }
        if settings.readsFirst { object["read-pattern"] = "fifo" }
        return "json:\(JSONWriter.string(.object(object)))"
    }

    private static func description(of driver: any BlockDriver) -> JSONValue {
        let filename = driver.displayFilename
        if filename.hasPrefix("json:"), let value = try? JSONParser.parse(String(filename.dropFirst(5))) {
            return value
        }
        let file: JSONValue = ["driver": "file", "filename": .string(filename)]
        return driver.driverName == "file" ? file : ["driver": .string(driver.driverName), "file": file]
    }
}
