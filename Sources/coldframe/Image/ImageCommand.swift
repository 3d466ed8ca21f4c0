import ArgumentParser

/// `coldframe image VERB`: work on images that no agent has open.
struct Image: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check, describe, make, convert, compare and amend disk images, and read the files in them.",
        discussion: """
            Works on files, without an agent; an image that an agent or a VMM has open is refused. With --json the \
            output has the shape of qemu-img's.
            """,
        subcommands: [
            ImageCheck.self, ImageInfo.self, ImageMapCommand.self, ImageCreate.self, ImageConvert.self,
            ImageCompare.self, ImageAmend.self, ImageFiles.self,
        ])
}

/// How an image is found and opened.
struct ImageOpeningOptions: ParsableArguments {
    @Flag(name: [.customShort("U"), .customLong("force-share")], help: "Read an image that others may be writing.")
    var forceShare = false
    @Option(
        name: .customLong("allow-backing"),
        help: "Folder into which file names found in images are followed; by default that of the image itself.")
    var allowBacking: [String] = []
}
