import Glibc

/// The files of the generator. It has no dependencies, hence no wrapper of system calls.
enum FileAccess {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    static func read(_ path: String) throws -> [UInt8] {
        guard let file = fopen(path, "r") else { throw Failure(description: "\(path): error: cannot be read") }
        defer { fclose(file) }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            content += buffer[..<count]
        }
        if ferror(file) != 0 { throw Failure(description: "\(path): error: cannot be read") }
        return content
    }

    /// Writes unless the file has that content already: what depends on it is then not built again.
    static func writeIfChanged(_ path: String, _ text: String) throws {
        let bytes = Array(text.utf8)
        if let old = try? read(path), old == bytes { return }
        guard let file = fopen(path, "w") else { throw Failure(description: "\(path): error: cannot be written") }
        let count = fwrite(bytes, 1, bytes.count, file)
        guard fclose(file) == 0, count == bytes.count else {
            throw Failure(description: "\(path): error: cannot be written")
        }
    }

    /// Paths of the schema files in a folder, sorted.
    static func schemaFiles(in folder: String) throws -> [String] {
        guard let stream = opendir(folder) else { throw Failure(description: "\(folder): error: is no folder") }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: entry.pointee.d_name) { tuple in
                // d_name ends with a NUL byte within its 256 bytes.
                tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(".json"), !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted().map { folder + "/" + $0 }
    }

    static func printError(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = Glibc.write(2, bytes, bytes.count)
    }
}
