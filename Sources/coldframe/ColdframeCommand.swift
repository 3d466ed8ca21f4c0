import ArgumentParser

/// The command line of people: finds a running agent by name and speaks QMP with it; works on images that none has open.
@main
struct ColdframeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "coldframe",
        abstract: "Save, browse and load snapshots of virtual machines through coldframed.",
        version: "coldframe 0.1.0",
        subcommands: [
            Status.self, Snapshot.self, Browse.self, Jobs.self, Job.self, Image.self, Attach.self, Detach.self,
            QMP.self,
        ])
}
