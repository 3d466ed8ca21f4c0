import ColdframeKit
import LinuxSystem

/// Decides whether a file name that was found inside an image is followed.
///
/// An image is hostile: its backing file name may point at any file that the agent can read. So a name is followed only
/// into folders that the user has allowed; the way without the gate is to give `backing` in the options.
public struct ImageReferenceGate: Sendable {
    private let allowedFolders: [String]

    /// Absolute paths of folders; everything below them is allowed.
    public init(allowedFolders: [String]) {
        self.allowedFolders = allowedFolders.map { $0.hasSuffix("/") ? $0 : $0 + "/" }
    }

    /// What an image names a file for.
    public enum Purpose: String, Sendable {
        case backing
        case data
        /// The option that gives the file instead.
        var option: String { self == .backing ? "backing" : "data-file" }
    }

    /// The path to open for `filename` as named by the image at `imageFilename`.
    public func resolve(
        _ filename: String, as purpose: Purpose = .backing, imageFilename: String
    ) throws(ColdframeError) -> String {
        guard !filename.isEmpty, !filename.utf8.contains(0) else {
            throw ColdframeError(
                .corrupt, "Image '\(imageFilename)' names a \(purpose.rawValue) file that is no file name")
        }
        let folder = imageFilename.lastIndex(of: "/").map { String(imageFilename[...$0]) } ?? ""
        let joined = filename.hasPrefix("/") ? filename : folder + filename
        let path: String
        do {
            path = try Files.canonicalPath(joined)
        } catch {
            throw ColdframeError(
                .notFound, "Could not open \(purpose.rawValue) file: Could not open '\(joined)': \(error.reason)")
        }
        // The canonical path is judged, so that neither `..` nor a link leads out of an allowed folder.
        guard allowedFolders.contains(where: { path.hasPrefix($0) }) else {
            throw ColdframeError(
                .permission,
                "Image '\(imageFilename)' names the \(purpose.rawValue) file '\(filename)', which is not followed by "
                    + "itself: give '\(purpose.option)' in the node's options, or allow its folder with --allow-backing"
            )
        }
        return path
    }
}
