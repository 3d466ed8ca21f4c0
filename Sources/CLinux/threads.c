#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// A mutex and a condition variable at an address that never moves.
struct cf_monitor {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
};

cf_monitor *cf_monitor_create(void) {
    cf_monitor *monitor = malloc(sizeof *monitor);
    if (!monitor) abort();
    pthread_mutex_init(&monitor->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&monitor->condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return monitor;
}

void cf_monitor_destroy(cf_monitor *monitor) {
    pthread_cond_destroy(&monitor->condition);
    pthread_mutex_destroy(&monitor->mutex);
    free(monitor);
}

void cf_monitor_lock(cf_monitor *monitor) { pthread_mutex_lock(&monitor->mutex); }

void cf_monitor_unlock(cf_monitor *monitor) { pthread_mutex_unlock(&monitor->mutex); }

void cf_monitor_wait(cf_monitor *monitor) { pthread_cond_wait(&monitor->condition, &monitor->mutex); }

bool cf_monitor_wait_until(cf_monitor *monitor, uint64_t deadline_nanoseconds) {
    struct timespec deadline = {
        .tv_sec = (time_t)(deadline_nanoseconds / 1000000000u), .tv_nsec = (long)(deadline_nanoseconds % 1000000000u)};
    return pthread_cond_timedwait(&monitor->condition, &monitor->mutex, &deadline) != ETIMEDOUT;
}

void cf_monitor_signal(cf_monitor *monitor) { pthread_cond_signal(&monitor->condition); }

void cf_monitor_broadcast(cf_monitor *monitor) { pthread_cond_broadcast(&monitor->condition); }

int32_t cf_thread_id(void) { return gettid(); }

void cf_set_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }
