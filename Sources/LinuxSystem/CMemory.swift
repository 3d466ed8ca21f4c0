import Glibc

/// Memory that C functions hand over.
public enum CMemory {
    /// `free(3)`; nil is nothing.
    public static func free(_ pointer: UnsafeMutablePointer<CChar>?) { Glibc.free(pointer) }
}
