import ColdframeKit

extension Qcow2Driver {
    public var backing: BlockNode? { backingSlot.node }

    public func setBacking(_ node: BlockNode?) { backingSlot.set(node) }

    /// Durable when it returns; a crash leaves the old name and format, or the new.
    public func setBackingFile(name: String?, format: String?) throws(ColdframeError) {
        guard !isReadOnly else {
            throw ColdframeError(.permission, "Image '\(displayFilename)' is open read-only")
        }
        if store.data.isRaw {
            if name == nil { return }
            throw ColdframeError(.unsupported, "An image with a raw external data file has no backing file", errno: 22)
        }
        guard (name?.utf8.count ?? 0) <= Int(Limits.backingNameByteCount) else {
            throw ColdframeError(.invalidArgument, "Backing file name too long", errno: 22)
        }
        guard (format?.utf8.count ?? 0) < 16 else {
            throw ColdframeError(.invalidArgument, "Backing file format '\(format ?? "")' is too long", errno: 22)
        }
        try store.rewriteHeader { cluster in
            cluster.extensions.setBackingFormat(name == nil ? nil : format)
            cluster.backingFilename = name
        }
    }
}
