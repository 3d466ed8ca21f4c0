// What Glibc's Swift module lacks: variadic calls, calls behind _GNU_SOURCE, and macros with arguments.
// Every function returns what the C call returns and leaves errno as the C call does.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma clang assume_nonnull begin

// Files.

extern const int32_t cf_O_DIRECT, cf_O_TMPFILE, cf_O_PATH;
/// open(2); O_CLOEXEC is always added.
int cf_open(const char *path, int flags, unsigned mode);
/// openat(2); O_CLOEXEC is always added.
int cf_openat(int directory, const char *name, int flags, unsigned mode);
/// fallocate(2) with the FALLOC_FL_* bits below.
int cf_fallocate(int fd, int mode, off_t offset, off_t length);
extern const int32_t cf_FALLOC_KEEP_SIZE, cf_FALLOC_PUNCH_HOLE, cf_FALLOC_ZERO_RANGE;
/// lseek(2) with SEEK_DATA or SEEK_HOLE.
off_t cf_seek_data(int fd, off_t offset);
/* sync_file_range(2) of all of a file, SYNC_FILE_RANGE_WRITE. */
int cf_start_writeback(int fd);
off_t cf_seek_hole(int fd, off_t offset);
/// fcntl(2) F_OFD_SETLK; `kind` is F_RDLCK, F_WRLCK or F_UNLCK.
int cf_ofd_lock(int fd, int kind, off_t offset, off_t length);
/// fcntl(2) F_OFD_GETLK: sets `*is_free` to whether a lock of `kind` could be placed.
int cf_ofd_test(int fd, int kind, off_t offset, off_t length, bool *is_free);
/// fcntl(2) F_DUPFD_CLOEXEC with a least number.
int cf_duplicate(int fd, int at_least);
/// dup3(2): `fd` stands for what `other` stands for.
int cf_replace(int fd, int other);
int cf_set_nonblocking(int fd, bool is_nonblocking);
/// ioctl(2) BLKGETSIZE64 and BLKSSZGET.
int cf_block_device_size(int fd, uint64_t *size);
int cf_block_device_sector_size(int fd, int *size);
/// ioctl(2) FS_IOC_SETFLAGS: new data of the file is not copied on write, where the filesystem does that.
int cf_disable_copy_on_write(int fd);
/// ioctl(2) FICLONERANGE: the range of `target` and that of `source` share their blocks until one of them is written.
int cf_clone_range(int target, uint64_t target_offset, int source, uint64_t source_offset, uint64_t count);
/// statfs(2) f_type.
int cf_filesystem_type(int fd, int64_t *type);
int cf_memfd_create(const char *name);
/// statx(2) STATX_BTIME in nanoseconds since 1970; 0 where the filesystem does not keep it.
int cf_birth_time(int fd, uint64_t *nanoseconds);

// Sockets, pipes, events.

int cf_accept(int fd);
int cf_pipe(int descriptors[_Nonnull 2]);
int cf_eventfd(void);
/// Peer of a unix socket (SO_PEERCRED).
int cf_peer_credentials(int fd, pid_t *pid, uid_t *uid, gid_t *gid);
/// sendmsg(2) with SCM_RIGHTS and MSG_NOSIGNAL.
ssize_t cf_send_descriptors(int fd, const void *_Nullable bytes, size_t count, const int *_Nullable descriptors, size_t n);
/// One datagram to the unix socket at `path`; a first `@` stands for the abstract namespace.
ssize_t cf_send_datagram(const char *path, const void *bytes, size_t count);
/// recvmsg(2) with MSG_CMSG_CLOEXEC. At most `max` (up to 253) descriptors; if more came, all are closed and errno is EMSGSIZE.
ssize_t cf_receive_descriptors(int fd, void *bytes, size_t count, int *_Nullable descriptors, size_t max, size_t *n);

// Processes and signals.

int cf_pidfd_open(pid_t pid);
/// prctl(2) PR_SET_PDEATHSIG; it cannot fail with a valid signal.
void cf_signal_at_parents_end(int signal);
/// pidfd_send_signal(2).
int cf_pidfd_send_signal(int pidfd, int signal);
/// pidfd_getfd(2): a copy of another process's descriptor; CLOEXEC.
int cf_pidfd_getfd(int pidfd, int target);
/// ioctl(2) UFFDIO_UNREGISTER and UFFDIO_WAKE.
int cf_userfault_unregister(int fd, uint64_t start, uint64_t length);
int cf_userfault_wake(int fd, uint64_t start, uint64_t length);
/// signalfd(2) of the given signals.
int cf_signalfd(const int *signals, size_t n);
/// pthread_sigmask(3): blocks the given signals in the calling thread and those it starts later.
int cf_block_signals(const int *signals, size_t n);
/// posix_spawnp(3) with all signals at their defaults and unblocked. Descriptors above 2 that are not a target are
/// closed. `sources` must be CLOEXEC and above every target. Returns an errno, as posix_spawn does.
int cf_spawn(pid_t *pid, const char *path, char *_Nullable const *_Nonnull arguments,
             char *_Nullable const *_Nullable environment, const int *_Nullable sources, const int *_Nullable targets,
             size_t n, const char *_Nullable working_directory, bool new_session);
/// waitpid(2): `*exited` tells exit from signal, `*code` is the exit status or the signal.
pid_t cf_wait(pid_t pid, bool can_block, bool *exited, int *code);
/// fork(2) twice with setsid(2) between: returns 0 in the grandchild and its pid in the caller, or -1. Only while the
/// process has one thread.
pid_t cf_fork_detached(void);

// Threads.

/// A mutex with a condition variable on CLOCK_MONOTONIC, at an address that does not change.
typedef struct cf_monitor cf_monitor;
cf_monitor *cf_monitor_create(void);
void cf_monitor_destroy(cf_monitor *monitor);
void cf_monitor_lock(cf_monitor *monitor);
void cf_monitor_unlock(cf_monitor *monitor);
void cf_monitor_wait(cf_monitor *monitor);
/// Returns false once the monotonic clock has reached `deadline_nanoseconds`.
bool cf_monitor_wait_until(cf_monitor *monitor, uint64_t deadline_nanoseconds);
void cf_monitor_signal(cf_monitor *monitor);
void cf_monitor_broadcast(cf_monitor *monitor);
int32_t cf_thread_id(void);
void cf_set_thread_name(const char *name);

// Mappings, random numbers.

void *_Nullable cf_map_read_only(int fd, size_t length);
/// mmap(2) of anonymous memory that was read and never written.
void *_Nullable cf_map_zero_page(size_t length);
/// process_madvise(2) MADV_COLLAPSE of one range of another process. EINVAL before Linux 6.1.
ssize_t cf_collapse_pages(int pidfd, uint64_t address, size_t length);
ssize_t cf_random(void *bytes, size_t count);

#pragma clang assume_nonnull end
