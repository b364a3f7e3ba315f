/* faults.h -- the system with faults, for the default files and the default allocator: once it is
 * on, the n-th call fails, once or for ever. Short: write and pread do half. Before test.h. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DP__SYS(call) fault_##call
#define DP_MALLOC(bytes) fault_malloc(bytes)
#define DP_FREE(p) fault_free(p)

static struct {
    int on, calls, fail_at, for_ever, code, cut, unlinks_failed, live, fds;
    int  fatal;    /* faults in calls whose failure has to be reported */
    char log[128]; /* create, write, fsync, Close, rename, fsync of Directory, unlink */
} faults;

static void fault_log(char c) {
    size_t n = strlen(faults.log);
    if (n + 1 < sizeof faults.log) faults.log[n] = c;
}

/* What a fault in a call means: nothing to the result; an error; an error unless it is EINTR. */
enum { FAULT_HARMLESS, FAULT_FATAL, FAULT_RETRIED };

static int faulty(int meaning) {
    if (!faults.on) return 0;
    int n = ++faults.calls;
    if (!faults.fail_at || n < faults.fail_at || (n > faults.fail_at && !faults.for_ever)) return 0;
    errno = faults.code;
    faults.fatal += meaning == FAULT_FATAL || (meaning == FAULT_RETRIED && errno != EINTR);
    return 1;
}

static int fault_openat(int dir, const char *name, int flags, mode_t mode) {
    int made = (flags & O_CREAT) != 0;
    if (made) fault_log('c');
    int fd = faulty(made ? FAULT_RETRIED : FAULT_FATAL) ? -1 : openat(dir, name, flags, mode);
    faults.fds += fd >= 0;
    return fd;
}
static int fault_mkdir(const char *path, mode_t mode) {
    return faulty(FAULT_FATAL) ? -1 : mkdir(path, mode);
}
static int fault_fstat(int fd, struct stat *to) {
    return faulty(FAULT_FATAL) ? -1 : fstat(fd, to);
}
static ssize_t fault_pread(int fd, void *to, size_t bytes, off_t offset) {
    if (faulty(FAULT_RETRIED)) return faults.cut ? 0 : -1;
    return pread(fd, to, faults.cut && bytes > 1 ? bytes / 2 : bytes, offset);
}
static ssize_t fault_write(int fd, const void *data, size_t bytes) {
    fault_log('w');
    if (faulty(FAULT_RETRIED)) return faults.cut ? 0 : -1;
    return write(fd, data, faults.cut && bytes > 1 ? bytes / 2 : bytes);
}
static int fault_fsync(int fd) {
    struct stat st;
    fault_log(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 'D' : 'f');
    return faulty(FAULT_FATAL) ? -1 : fsync(fd);
}
static int fault_close(int fd) {
    int written = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
    if (written) fault_log('C');
    faults.fds--; /* as on Linux: the descriptor is gone, whatever close returns */
    close(fd);
    return faulty(written ? FAULT_FATAL : FAULT_HARMLESS) ? -1 : 0;
}
static int fault_renameat(int a, const char *from, int b, const char *to) {
    fault_log('r');
    return faulty(FAULT_FATAL) ? -1 : renameat(a, from, b, to);
}
static int fault_unlinkat(int dir, const char *name, int flags) {
    fault_log('u');
    if (faulty(FAULT_HARMLESS)) return faults.unlinks_failed++, -1;
    return unlinkat(dir, name, flags);
}
static int fault_fstatvfs(int fd, struct statvfs *to) {
    return faulty(FAULT_FATAL) ? -1 : fstatvfs(fd, to);
}
static void *fault_malloc(size_t bytes) {
    if (faulty(FAULT_FATAL)) return NULL;
    faults.live += faults.on;
    return malloc(bytes);
}
static void fault_free(void *p) {
    faults.live -= faults.on;
    free(p);
}
