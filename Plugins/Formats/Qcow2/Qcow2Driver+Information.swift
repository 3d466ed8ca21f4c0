import ColdframeKit
import QMPWire

extension Qcow2Driver {
    public func information() throws(ColdframeError) -> BlockInformation {
        let header = store.header
        var data: JSONObject = [:]
        data["compat"] = .string(header.version >= 3 ? "1.1" : "0.10")
        if header.version >= 3 {
            data["data-file"] = extensions.externalDataFilename.map { .string($0) }
            if geometry.hasExternalData { data["data-file-raw"] = .bool(store.data.isRaw) }
            data["extended-l2"] = .bool(geometry.hasExtendedL2)
            data["lazy-refcounts"] = .bool(header.compatible & Header.lazyRefcountsFeature != 0)
            data["corrupt"] = .bool(header.incompatible.contains(.corrupt))
        }
        data["refcount-bits"] = .integer(1 << Int64(geometry.refcountOrder))
        data["compression-type"] = .string(writer.compression.name)
        return BlockInformation(
            allocatedByteCount: try file.node.driver.information().allocatedByteCount,
            clusterByteCount: UInt32(geometry.clusterByteCount),
            isDirty: header.incompatible.contains(.dirty), backingFilename: backingFilename,
            backingFormat: extensions.backingFormat, formatSpecific: ("qcow2", data))
    }
}
