import Glibc

// Reading and writing. Counts and offsets are bytes; a count of 0 from a read means the end.

extension Descriptor {
    /// `read(2)`.
    public func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        try SystemCall.run("read") { Glibc.read(raw, buffer.baseAddress, buffer.count) }
    }

    /// `write(2)`.
    public func write(_ buffer: UnsafeRawBufferPointer) throws(SystemError) -> Int {
        try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("write") { Glibc.write(raw, buffer.baseAddress, buffer.count) }
        } _: { key, count in
            .write(key, offset: UInt64(lseek(raw, 0, SEEK_CUR) - off_t(count)), bytes: Array(buffer[..<count]))
        }
    }

    /// `read(2)` until the buffer is full; less only at the end.
    public func readFull(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]))
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// `write(2)` until all is written.
    public func writeAll(_ buffer: UnsafeRawBufferPointer) throws(SystemError) {
        var done = 0
        while done < buffer.count {
            done += try write(UnsafeRawBufferPointer(rebasing: buffer[done...]))
        }
    }

    /// `writeAll` of an array.
    public func writeAll(_ bytes: [UInt8]) throws(SystemError) {
        try bytes.withUnsafeBufferPointer { buffer throws(SystemError) in
            try writeAll(UnsafeRawBufferPointer(buffer))
        }
    }

    /// `writev(2)` of two pieces (a header and its payload) until both are written.
    public func writeAll(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) throws(SystemError) {
        // The kernel reads through these pointers only; iovec has no const form.
        var done = 0
        while done < first.count {
            let rest = UnsafeRawBufferPointer(rebasing: first[done...])
            let head = iovec(iov_base: UnsafeMutableRawPointer(mutating: rest.baseAddress), iov_len: rest.count)
            let tail = iovec(iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress), iov_len: second.count)
            done += try withUnsafePointer(to: (head, tail)) { pair throws(SystemError) in
                try pair.withMemoryRebound(to: iovec.self, capacity: 2) { vectors throws(SystemError) in
                    try SystemCall.run("writev") { writev(raw, vectors, second.isEmpty ? 1 : 2) }
                }
            }
        }
        try writeAll(UnsafeRawBufferPointer(rebasing: second[(done - first.count)...]))
    }

    /// `pread(2)`.
    public func pread(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        let position = try SystemCall.offset(offset, "pread")
        return try SystemCall.run("pread") { Glibc.pread(raw, buffer.baseAddress, buffer.count, position) }
    }

    /// `pwrite(2)`.
    public func pwrite(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        let position = try SystemCall.offset(offset, "pwrite")
        return try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("pwrite") { Glibc.pwrite(raw, buffer.baseAddress, buffer.count, position) }
        } _: { key, count in
            .write(key, offset: offset, bytes: Array(buffer[..<count]))
        }
    }

    /// `pread(2)` until the buffer is full; less only at the end of the file. Returns the bytes read.
    public func preadFull(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = try pread(into: rest, at: offset &+ UInt64(done))
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// `pwrite(2)` until all is written.
    public func pwriteAll(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
            let count = try pwrite(rest, at: offset &+ UInt64(done))
            // A pwrite of more than nothing that writes nothing would be repeated for ever.
            if count == 0 { throw SystemError(errno: EIO, operation: "pwrite") }
            done += count
        }
    }

    /// `fdatasync(2)`: the data, and the metadata needed to read it, on stable storage.
    public func synchronizeData() throws(SystemError) {
        _ = try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("fdatasync") { fdatasync(raw) }
        } _: { key, _ in
            .synchronize(key)
        }
    }

    /// `fsync(2)`.
    public func synchronize() throws(SystemError) {
        _ = try FileChanges.perform(on: raw) { () throws(SystemError) in
            try SystemCall.run("fsync") { fsync(raw) }
        } _: { key, _ in
            .synchronize(key)
        }
    }
}
