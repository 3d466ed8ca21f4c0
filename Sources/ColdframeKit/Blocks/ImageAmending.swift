import QAPI

/// An image that is to become another kind of itself, with the nodes that it stands on. No driver has it open.
public struct AmendedImage: Sendable {
    /// Holds the image; writable.
    public let file: BlockNode
    /// What shows through where the image has nothing; nil for none.
    public let backing: BlockNode?
    /// The guest's data, for images that keep it in a file of its own.
    public let dataFile: BlockNode?

    public init(file: BlockNode, backing: BlockNode?, dataFile: BlockNode?) {
        self.file = file
        self.backing = backing
        self.dataFile = dataFile
    }
}

/// Is told how far an amendment has come, in steps of its own, on the thread that does it. It ends the amendment by a
/// throw; then each option has its old value or its new one.
public typealias AmendProgress = @Sendable (_ done: UInt64, _ total: UInt64) throws(ColdframeError) -> Void

/// A format that can give an image other options: `x-blockdev-amend`, `coldframe image amend`.
public protocol ImageAmending: BlockDriverFactory {
    /// Changes what `options` name. Blocks, and does I/O on all of the image's metadata for some of them. Durable when it
    /// returns; a crash leaves each option with its old value or its new one, and the disk's content as it was. What cannot be
    /// is found before anything is changed, as far as the image tells.
    func amend(
        _ image: AmendedImage, _ options: BlockdevAmendOptions, progress: @escaping AmendProgress
    ) throws(ColdframeError)
}
