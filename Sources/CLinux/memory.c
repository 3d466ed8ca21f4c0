#define _GNU_SOURCE
#include "CLinux.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// Of Linux 6.1; the headers of Debian 12 have it, older ones do not.
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

ssize_t cf_collapse_pages(int pidfd, uint64_t address, size_t length) {
    struct iovec range = {.iov_base = (void *)(uintptr_t)address, .iov_len = length};
    return syscall(SYS_process_madvise, pidfd, &range, 1, MADV_COLLAPSE, 0);
}

void *cf_map_zero_page(size_t length) {
    volatile const char *page = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NULL;
    (void)*page;  // A read fault: the kernel's page of zeros is there from now on.
    return (void *)page;
}
