import ColdframeKit

/// The module of FAT: FAT12, FAT16 and FAT32 with long names, read-only.
public enum FatFilesystemModule {
    public static var module: Module {
        Module(name: "GuestFilesystems/Fat", guestFilesystems: [FatFactory()])
    }
}

/// Recognises and opens FAT volumes.
struct FatFactory: GuestFilesystemFactory {
    let typeName = "fat"

    func recognises(_ volume: any GuestVolume) throws(ColdframeError) -> Bool {
        guard volume.byteCount >= UInt64(FatBootSector.byteCount) else { return false }
        let head = try volume.part(byteCount: FatBootSector.byteCount, at: 0, "The boot sector")
        return FatBootSector(head).isPlausible
    }

    func open(_ volume: any GuestVolume) throws(ColdframeError) -> any GuestFilesystem {
        try FatFilesystem(volume)
    }
}
