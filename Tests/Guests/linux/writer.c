// The program of the Linux test guest: a counter in RAM, three writers on three ext4 disks, and answers on the console.
//
// Every writer numbers its records. `issued` is raised before a record is written, `acked` after the write came back:
// /mnt/0 is written with fsync, /mnt/1 through the page cache, /mnt/2 with O_DIRECT. The numbers stand in one page of RAM
// whose physical address is reported, so that a host can read them from a guest that stands still.
//
// Commands, one per line on the console, each answered by one line of JSON: see `answer`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { writers = 3, record_bytes = 4096, slots = 256, files_kept = 8, records_per_file = 16 };

struct writer_numbers {
    _Atomic uint64_t issued, acked, errors;
};

// The page that hosts read. Little-endian; the offsets are known to Tests/Integration.
struct page {
    char magic[16];
    _Atomic uint64_t counter;
    _Atomic uint64_t longest_gap_ns;
    struct writer_numbers writer[writers];
};

struct record {
    char magic[8];
    uint64_t writer, number;
    uint8_t payload[record_bytes - 24];
};
_Static_assert(sizeof(struct record) == record_bytes, "a record is one block");

static struct page *page;
static atomic_bool quiet, spinning;
static atomic_int active_writers;
static const useconds_t pause_us[writers] = {2000, 1000, 2000};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The payload follows from writer and number, so that a torn or foreign record is seen.
static void fill(struct record *r, uint64_t writer, uint64_t number) {
    memcpy(r->magic, "CFRECORD", 8);
    r->writer = writer;
    r->number = number;
    uint64_t x = number * 0x9e3779b97f4a7c15u + writer + 1;
    for (size_t i = 0; i < sizeof r->payload; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(r->payload + i, &x, 8);
    }
}

// Work for the filesystem's journal: small files come and go.
static void churn(int writer, uint64_t number) {
    char path[64];
    snprintf(path, sizeof path, "/mnt/%d/file-%llu", writer, (unsigned long long)(number / records_per_file));
    FILE *file = fopen(path, "w");
    if (!file) {
        atomic_fetch_add(&page->writer[writer].errors, 1);
        return;
    }
    fprintf(file, "record %llu\n", (unsigned long long)number);
    if (fclose(file) != 0) atomic_fetch_add(&page->writer[writer].errors, 1);
    snprintf(path, sizeof path, "/mnt/%d/file-%llu", writer,
             (unsigned long long)(number / records_per_file - files_kept));
    unlink(path);
}

static int open_ring(int writer, int flags) {
    char path[32];
    snprintf(path, sizeof path, "/mnt/%d/ring", writer);
    int fd = open(path, O_RDWR | O_CREAT | flags, 0644);
    if (fd < 0) perror(path), exit(1);
    return fd;
}

// Writes one record and returns when the writer's kind of write has come back. An error is counted and tried again.
static void write_record(int fd, int writer, const struct record *r) {
    off_t offset = (off_t)(r->number % slots) * record_bytes;
    while (pwrite(fd, r, record_bytes, offset) != record_bytes || (writer == 0 && fsync(fd) != 0)) {
        atomic_fetch_add(&page->writer[writer].errors, 1);
        usleep(100000);
    }
    // So that at any moment some pages are clean and some are dirty: a clean page is one that the disk must hold.
    if (writer == 1 && r->number % records_per_file == 0) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static void *write_records(void *argument) {
    int writer = (int)(intptr_t)argument;
    int fd = open_ring(writer, writer == 2 ? O_DIRECT : 0);
    struct record *r = aligned_alloc(record_bytes, record_bytes);
    if (!r) exit(1);
    struct writer_numbers *numbers = &page->writer[writer];
    for (;; usleep(pause_us[writer])) {
        atomic_fetch_add(&active_writers, 1);
        if (!atomic_load(&quiet)) {
            uint64_t number = atomic_load(&numbers->issued) + 1;
            fill(r, (uint64_t)writer, number);
            atomic_store(&numbers->issued, number);
            write_record(fd, writer, r);
            atomic_store(&numbers->acked, number);
            if (number % records_per_file == 0) churn(writer, number);
        }
        atomic_fetch_sub(&active_writers, 1);
    }
    return NULL;
}

// Counts, and keeps the longest time between two counts. Spinning, it also sends a byte on the second serial port every
// millisecond: the guest's own clocks stand still while its VMM has it stopped, the host's does not.
static void *count(void *argument) {
    (void)argument;
    cpu_set_t last_processor;
    CPU_ZERO(&last_processor);
    CPU_SET((int)sysconf(_SC_NPROCESSORS_ONLN) - 1, &last_processor);
    sched_setaffinity(0, sizeof last_processor, &last_processor);
    int heartbeat = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_NONBLOCK);
    uint64_t before = now_ns(), beat = before;
    for (;;) {
        bool spins = atomic_load(&spinning);
        if (!spins) usleep(1000);
        uint64_t now = now_ns();
        atomic_fetch_add(&page->counter, 1);
        if (now - before > atomic_load(&page->longest_gap_ns)) atomic_store(&page->longest_gap_ns, now - before);
        before = now;
        if (spins && now - beat >= 1000000) {
            beat = now;
            if (write(heartbeat, ".", 1) < 0 && errno != EAGAIN) return NULL;
        }
    }
}

// Fills every ring with records 1-slots ... 0, so that the file has all its blocks before anything is counted.
static void prepare_ring(int writer) {
    struct record r;
    int fd = open_ring(writer, O_TRUNC);
    for (uint64_t slot = 0; slot < slots; slot++) {
        fill(&r, (uint64_t)writer, slot == 0 ? 0 : slot - slots);
        if (pwrite(fd, &r, sizeof r, (off_t)slot * record_bytes) != record_bytes) perror("ring"), exit(1);
    }
    fsync(fd);
    close(fd);
}

// Whether the ring on the disk holds exactly the last records that were acknowledged. Caches were dropped before.
static bool ring_is_whole(int writer) {
    bool whole = true;
    struct record r, expected;
    uint64_t last = atomic_load(&page->writer[writer].acked);
    int fd = open_ring(writer, 0);
    for (uint64_t number = last - slots + 1; number != last + 1; number++) {
        fill(&expected, (uint64_t)writer, number);
        if (pread(fd, &r, sizeof r, (off_t)(number % slots) * record_bytes) != record_bytes ||
            memcmp(&r, &expected, sizeof r) != 0) {
            printf("writer %d: record %lld is not there\n", writer, (long long)number);
            whole = false;
        }
    }
    close(fd);
    return whole;
}

static void drop_caches(void) {
    sync();
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1) perror("drop_caches");
    if (fd >= 0) close(fd);
}

static uint64_t physical_address(const void *address) {
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)address / 4096 * 8)) != 8) perror("pagemap");
    if (fd >= 0) close(fd);
    return (entry & ((1ull << 55) - 1)) * 4096;
}

static void report(const char *event) {
    printf("{\"event\": \"%s\", \"physical\": %llu, \"counter\": %llu, \"longest-gap-ns\": %llu, \"writers\": [", event,
           (unsigned long long)physical_address(page), (unsigned long long)page->counter,
           (unsigned long long)page->longest_gap_ns);
    for (int i = 0; i < writers; i++)
        printf("%s{\"issued\": %llu, \"acked\": %llu, \"errors\": %llu}", i ? ", " : "",
               (unsigned long long)page->writer[i].issued, (unsigned long long)page->writer[i].acked,
               (unsigned long long)page->writer[i].errors);
    printf("]}\n");
}

// Gives the guest that many MiB of random RAM, kept for good.
static void touch_memory(unsigned long long mebibytes) {
    size_t words = mebibytes << 17;
    uint64_t *memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t x = now_ns() | 1;
    if (memory == MAP_FAILED) {
        printf("{\"event\": \"touched\", \"error\": \"%s\"}\n", strerror(errno));
        return;
    }
    for (size_t i = 0; i < words; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memory[i] = x;
    }
    printf("{\"event\": \"touched\", \"mebibytes\": %llu}\n", mebibytes);
}

// Stops the writers and proves that what reached the disks is what RAM knows as acknowledged.
static void quiesce(void) {
    atomic_store(&quiet, true);
    while (atomic_load(&active_writers) > 0) usleep(1000);
    drop_caches();
    bool whole[writers];
    for (int i = 0; i < writers; i++) whole[i] = ring_is_whole(i);
    printf("{\"event\": \"quiesced\", \"whole\": [%s, %s, %s]}\n", whole[0] ? "true" : "false",
           whole[1] ? "true" : "false", whole[2] ? "true" : "false");
}

static void answer(const char *line) {
    unsigned long long mebibytes;
    if (strcmp(line, "report") == 0) report("report");
    else if (strcmp(line, "reset-gap") == 0) atomic_store(&page->longest_gap_ns, 0), report("reset");
    else if (strcmp(line, "spin") == 0) atomic_store(&spinning, true), report("spinning");
    else if (strcmp(line, "rest") == 0) atomic_store(&spinning, false), report("resting");
    else if (strcmp(line, "quiesce") == 0) quiesce();
    else if (strcmp(line, "resume") == 0) atomic_store(&quiet, false), report("resumed");
    else if (sscanf(line, "touch %llu", &mebibytes) == 1) touch_memory(mebibytes);
    else if (strcmp(line, "poweroff") == 0) sync(), reboot(RB_POWER_OFF);
    else printf("{\"event\": \"unknown\"}\n");
}

static void raw_console(void) {
    struct termios mode;
    if (tcgetattr(0, &mode) != 0) return;
    mode.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
    mode.c_oflag &= ~(tcflag_t)OPOST;
    tcsetattr(0, TCSANOW, &mode);
}

int main(void) {
    raw_console();
    setvbuf(stdout, NULL, _IOLBF, 4096);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (page == MAP_FAILED || mlock(page, 4096) != 0) perror("page"), exit(1);
    memcpy(page->magic, "COLDFRAME GUEST", 16);
    for (int i = 0; i < writers; i++) prepare_ring(i);

    pthread_t thread;
    pthread_create(&thread, NULL, count, NULL);
    for (int i = 0; i < writers; i++) pthread_create(&thread, NULL, write_records, (void *)(intptr_t)i);
    report("ready");

    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (line[0]) answer(line);
    }
    for (;;) pause();
}
