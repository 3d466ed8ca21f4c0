#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <stddef.h>
#include <sys/un.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

int cf_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC); }

int cf_pipe(int descriptors[2]) { return pipe2(descriptors, O_CLOEXEC); }

int cf_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int cf_peer_credentials(int fd, pid_t *pid, uid_t *uid, gid_t *gid) {
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    int result = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
    if (result == 0) {
        *pid = credentials.pid;
        *uid = credentials.uid;
        *gid = credentials.gid;
    }
    return result;
}

// The kernel's SCM_MAX_FD.
enum { maximum_descriptors = 253 };

ssize_t cf_send_descriptors(int fd, const void *bytes, size_t count, const int *descriptors, size_t n) {
    if (n > maximum_descriptors) {
        errno = EINVAL;
        return -1;
    }
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(maximum_descriptors * sizeof(int))];
    if (n > 0) {
        memset(control, 0, sizeof control);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, n * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

ssize_t cf_receive_descriptors(int fd, void *bytes, size_t count, int *descriptors, size_t max, size_t *n) {
    if (max > maximum_descriptors) max = maximum_descriptors;
    struct iovec vector = {.iov_base = bytes, .iov_len = count};
    // Room for all that the kernel can send: what does not fit would be installed or lost without a trace.
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(maximum_descriptors * sizeof(int))];
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    *n = 0;
    ssize_t received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) return received;
    size_t total = 0;
    int all[maximum_descriptors];
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (here > maximum_descriptors - total) here = maximum_descriptors - total;
        memcpy(all + total, CMSG_DATA(header), here * sizeof(int));
        total += here;
    }
    if (total > max || (message.msg_flags & MSG_CTRUNC)) {
        for (size_t i = 0; i < total; i++) close(all[i]);
        errno = EMSGSIZE;
        return -1;
    }
    if (total > 0) memcpy(descriptors, all, total * sizeof(int));
    *n = total;
    return received;
}

ssize_t cf_send_datagram(const char *path, const void *bytes, size_t count) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address.sun_path) {
        errno = EINVAL;
        return -1;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    ssize_t sent = sendto(fd, bytes, count, MSG_NOSIGNAL, (const struct sockaddr *)&address, size);
    int code = errno;
    close(fd);
    errno = code;
    return sent;
}
