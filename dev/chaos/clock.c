// Preloaded into a process, whose wall clock it makes wrong by the number of seconds in the file CLOCK_ERROR.
// libfaketime cannot be used: its clock_nanosleep, which Python's time.sleep calls, fails.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static int (*actual)(clockid_t, struct timespec *);
static const volatile int64_t *error;

__attribute__((constructor)) static void start(void) {
    actual = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    void *mapped = mmap(NULL, sizeof *error, PROT_READ, MAP_SHARED, open(getenv("CLOCK_ERROR"), O_RDONLY), 0);
    if (mapped == MAP_FAILED) abort();
    error = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!error) start();
    int status = actual(clock, time);
    if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += *error;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *now = (struct timeval){time.tv_sec, time.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
