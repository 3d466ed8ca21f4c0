import ColdframeKit
import QMPWire

extension Qcow2Driver {
    public func information() throws(ColdframeError) -> BlockInformation {
        let header = store.header
        let names = store.names
        let extensions = names.extensions
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
        if let list = try bitmapList(), !list.isEmpty { data["bitmaps"] = .array(list) }
        data["compression-type"] = .string(writer.compression.name)
        return BlockInformation(
            allocatedByteCount: try file.node.driver.information().allocatedByteCount,
            isDirty: header.incompatible.contains(.dirty), backingFilename: names.backingFilename,
            backingFormat: extensions.backingFormat, formatSpecific: ("qcow2", data))
    }

    /// The stored bitmaps as QEMU lists them; nil if the image has none.
    private func bitmapList() throws(ColdframeError) -> [JSONValue]? {
        let entries: [BitmapEntry]
        if bitmaps.isMaintained {
            entries = bitmaps.entries
        } else if let ext = store.names.extensions.bitmaps {
            entries = try BitmapDirectory.read(ext, geometry, file)
        } else {
            return nil
        }
        return entries.map { entry in
            var flags: [JSONValue] = []
            if entry.flags.contains(.inUse) { flags.append("in-use") }
            if entry.flags.contains(.auto) { flags.append("auto") }
            return [
                "flags": .array(flags), "name": .string(entry.name),
                "granularity": .integer(1 << Int64(entry.granularityBits)),
            ]
        }
    }
}
