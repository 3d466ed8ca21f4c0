#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int cf_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

void cf_signal_at_parents_end(int signal) { prctl(PR_SET_PDEATHSIG, signal); }

int cf_pidfd_send_signal(int pidfd, int signal) { return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0); }

int cf_pidfd_getfd(int pidfd, int target) { return (int)syscall(SYS_pidfd_getfd, pidfd, target, 0); }

int cf_userfault_unregister(int fd, uint64_t start, uint64_t length) {
    struct uffdio_range range = {.start = start, .len = length};
    return ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int cf_userfault_wake(int fd, uint64_t start, uint64_t length) {
    struct uffdio_range range = {.start = start, .len = length};
    return ioctl(fd, UFFDIO_WAKE, &range);
}

static sigset_t make_set(const int *signals, size_t n) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < n; i++) sigaddset(&set, signals[i]);
    return set;
}

int cf_signalfd(const int *signals, size_t n) {
    sigset_t set = make_set(signals, n);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

int cf_block_signals(const int *signals, size_t n) {
    sigset_t set = make_set(signals, n);
    return pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int add_descriptor_actions(posix_spawn_file_actions_t *actions, const int *sources, const int *targets, size_t n) {
    int highest = 2;
    for (size_t i = 0; i < n; i++) {
        int result = posix_spawn_file_actions_adddup2(actions, sources[i], targets[i]);
        if (result) return result;
        if (targets[i] > highest) highest = targets[i];
    }
    // What lies between the targets; closing a number that is not open is no error here.
    for (int fd = 3; fd < highest; fd++) {
        bool is_target = false;
        for (size_t i = 0; i < n; i++) is_target |= targets[i] == fd;
        if (is_target) continue;
        int result = posix_spawn_file_actions_addclose(actions, fd);
        if (result) return result;
    }
    return posix_spawn_file_actions_addclosefrom_np(actions, highest + 1);
}

int cf_spawn(pid_t *pid, const char *path, char *const *arguments, char *const *environment, const int *sources,
             const int *targets, size_t n, const char *working_directory, bool new_session) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int result = posix_spawn_file_actions_init(&actions);
    if (result) return result;
    result = posix_spawnattr_init(&attributes);
    if (result) {
        posix_spawn_file_actions_destroy(&actions);
        return result;
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (new_session ? POSIX_SPAWN_SETSID : 0);
    if (working_directory) result = posix_spawn_file_actions_addchdir_np(&actions, working_directory);
    if (!result) result = add_descriptor_actions(&actions, sources, targets, n);
    if (!result) result = posix_spawnattr_setsigmask(&attributes, &none);
    if (!result) result = posix_spawnattr_setsigdefault(&attributes, &all);
    if (!result) result = posix_spawnattr_setflags(&attributes, flags);
    if (!result)
        result = posix_spawnp(pid, path, &actions, &attributes, arguments, environment ? environment : environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

pid_t cf_wait(pid_t pid, bool can_block, bool *exited, int *code) {
    int status = 0;
    pid_t result = waitpid(pid, &status, can_block ? 0 : WNOHANG);
    if (result > 0) {
        *exited = WIFEXITED(status);
        *code = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    }
    return result;
}

pid_t cf_fork_detached(void) {
    int ends[2];
    if (pipe(ends) < 0) return -1;
    pid_t child = fork();
    if (child < 0) {
        int code = errno;
        close(ends[0]);
        close(ends[1]);
        errno = code;
        return -1;
    }
    if (child == 0) {
        setsid();
        pid_t grandchild = fork();
        if (grandchild == 0) {
            close(ends[0]);
            close(ends[1]);
            return 0;
        }
        ssize_t written = write(ends[1], &grandchild, sizeof grandchild);
        _exit(written == sizeof grandchild ? 0 : 1);
    }
    close(ends[1]);
    pid_t grandchild = -1;
    ssize_t count;
    do count = read(ends[0], &grandchild, sizeof grandchild);
    while (count < 0 && errno == EINTR);
    close(ends[0]);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    if (count != sizeof grandchild || grandchild < 0) {
        errno = EAGAIN;
        return -1;
    }
    return grandchild;
}
