#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include "CLinux.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

const int32_t cf_O_DIRECT = O_DIRECT, cf_O_TMPFILE = O_TMPFILE, cf_O_PATH = O_PATH;
const int32_t cf_FALLOC_KEEP_SIZE = FALLOC_FL_KEEP_SIZE, cf_FALLOC_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE,
              cf_FALLOC_ZERO_RANGE = FALLOC_FL_ZERO_RANGE;

int cf_open(const char *path, int flags, unsigned mode) { return open(path, flags | O_CLOEXEC, (mode_t)mode); }

int cf_openat(int directory, const char *name, int flags, unsigned mode) {
    return openat(directory, name, flags | O_CLOEXEC, (mode_t)mode);
}

int cf_fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }

int cf_start_writeback(int fd) { return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); }

off_t cf_seek_data(int fd, off_t offset) { return lseek(fd, offset, SEEK_DATA); }

off_t cf_seek_hole(int fd, off_t offset) { return lseek(fd, offset, SEEK_HOLE); }

static struct flock make_lock(int kind, off_t offset, off_t length) {
    return (struct flock){.l_type = (short)kind, .l_whence = SEEK_SET, .l_start = offset, .l_len = length};
}

int cf_ofd_lock(int fd, int kind, off_t offset, off_t length) {
    struct flock lock = make_lock(kind, offset, length);
    return fcntl(fd, F_OFD_SETLK, &lock);
}

int cf_ofd_test(int fd, int kind, off_t offset, off_t length, bool *is_free) {
    struct flock lock = make_lock(kind, offset, length);
    int result = fcntl(fd, F_OFD_GETLK, &lock);
    *is_free = lock.l_type == F_UNLCK;
    return result;
}

int cf_duplicate(int fd, int at_least) { return fcntl(fd, F_DUPFD_CLOEXEC, at_least); }

int cf_replace(int fd, int other) { return dup3(other, fd, O_CLOEXEC); }

int cf_set_nonblocking(int fd, bool is_nonblocking) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -1;
    return fcntl(fd, F_SETFL, is_nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int cf_block_device_size(int fd, uint64_t *size) { return ioctl(fd, BLKGETSIZE64, size); }

int cf_block_device_sector_size(int fd, int *size) { return ioctl(fd, BLKSSZGET, size); }

int cf_disable_copy_on_write(int fd) {
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0) return -1;
    flags |= FS_NOCOW_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

int cf_clone_range(int target, uint64_t target_offset, int source, uint64_t source_offset, uint64_t count) {
    struct file_clone_range range = {
        .src_fd = source, .src_offset = source_offset, .src_length = count, .dest_offset = target_offset};
    return ioctl(target, FICLONERANGE, &range);
}

int cf_filesystem_type(int fd, int64_t *type) {
    struct statfs status;
    int result = fstatfs(fd, &status);
    if (result == 0) *type = (int64_t)status.f_type;
    return result;
}

int cf_birth_time(int fd, uint64_t *nanoseconds) {
    struct statx status;
    int result = statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &status);
    if (result == 0) {
        bool is_known = status.stx_mask & STATX_BTIME;
        *nanoseconds = is_known ? (uint64_t)status.stx_btime.tv_sec * 1000000000u + status.stx_btime.tv_nsec : 0;
    }
    return result;
}

int cf_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

void *cf_map_read_only(int fd, size_t length) {
    void *address = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
    return address == MAP_FAILED ? NULL : address;
}

ssize_t cf_random(void *bytes, size_t count) { return getrandom(bytes, count, 0); }
