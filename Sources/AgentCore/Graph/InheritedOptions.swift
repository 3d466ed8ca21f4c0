import ColdframeKit
import QAPI

/// What a node that is defined inside another takes from it where it says nothing itself (QEMU's rules for children).
struct InheritedOptions {
    var isReadOnly: Bool?
    var forceShare: Bool?
    var cache: BlockdevCacheOptions?
    /// A protocol below a format passes discards on; the format decides whether it sends any.
    var discard: BlockdevDiscardOptions?

    /// Nothing is inherited: the root of a `blockdev-add`.
    init() {}

    /// For a child of `parent` in the given role.
    init(parent: BlockdevOptions, role: ChildRole) {
        forceShare = parent.forceShare
        cache = parent.cache
        switch role {
        case .image, .data, .filtered, .observed, .copyTarget, .replica:
            isReadOnly = parent.readOnly
            discard = .unmap
        case .backing:
            isReadOnly = true
        }
    }

    func applied(to options: BlockdevOptions) -> BlockdevOptions {
        var options = options
        options.readOnly = options.readOnly ?? isReadOnly
        options.forceShare = options.forceShare ?? forceShare
        options.cache = options.cache ?? cache
        options.discard = options.discard ?? discard
        return options
    }
}
