/// Can store dirty bitmaps in its image.
///
/// The core keeps the bitmaps of an open node; the format only brings them in and takes them out. In-use marks that tell
/// a crash from an orderly close are the format's: set when the image is opened for writing, cleared by `storeBitmaps`.
/// All methods may do blocking I/O; they are called on `BlockingPool`, one at a time per driver.
public protocol BitmapBearing: BlockDriver {
    /// The bitmaps that the image holds, in its order. Called once, when the node has been opened and before any write.
    /// One whose in-use mark was left behind is `isInconsistent`; in a read-only image all are `isReadOnly`.
    func loadBitmaps() throws(ColdframeError) -> [DirtyBitmap]
    /// Throws, with QEMU's text, what forbids to store one of this name and granularity for a disk of that size, beside
    /// the others that are to be stored.
    func checkCanStoreBitmap(
        name: String, granularity: UInt32, diskByteCount: UInt64, beside others: [String]
    ) throws(ColdframeError)
    /// Makes the image hold exactly these, durable when it returns. Called before `close`, for a writable image, when no
    /// request is in flight; inconsistent ones are kept as they are stored.
    func storeBitmaps(_ bitmaps: [DirtyBitmap]) throws(ColdframeError)
    /// Takes a stored bitmap out of the image, durable when it returns. One that is not stored is no error.
    func removeStoredBitmap(name: String) throws(ColdframeError)
}
