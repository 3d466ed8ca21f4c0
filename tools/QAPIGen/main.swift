// QAPIGen --target NAME --output FILE [--lookup FILE]... FILE...
//     Writes the Swift file of one target. Definitions of the files after --lookup may be used but are not written.
// QAPIGen --reference NAME=FOLDER...
//     Prints the manual of all folders, the core's first.

do {
    try GeneratorCommand(Array(CommandLine.arguments.dropFirst())).run()
} catch {
    FileAccess.printError("\(error)")
    exitWithFailure()
}
