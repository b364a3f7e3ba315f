/* common.h -- what the three programs share, in the order in which a run needs it:
 *
 *   1  bytes       growable memory that is wiped before it is freed
 *   2  program     exit codes, signals, habits that keep documents private
 *   3  messages    stderr, the log file, progress
 *   4  files       outputs that are complete or absent
 *   5  options     one table: parsing, --help, suggestions, the report
 *   6  machine     cores that this process may use
 *
 * Include it once, after diseasepred.h with its implementation; rows.h follows. No message ever
 * holds text of a document. */
#ifndef COMMON_H
#define COMMON_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static void *checked_realloc(void *p, size_t n); /* for the arrays and maps of stb_ds */
#define STBDS_REALLOC(ctx, p, bytes) checked_realloc(p, bytes)
#define STBDS_FREE(ctx, p) free(p)
#define STB_DS_IMPLEMENTATION
#include <stb/stb_ds.h>
#ifndef __cplusplus
#undef STBDS_ADDRESSOF /* Trap: its own has `typeof`, which gcc does not know under -std=c99 */
#define STBDS_ADDRESSOF(typevar, value) ((__typeof__(typevar)[1]){value})
#endif

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* no program needs all of it */
#define LIKE_PRINTF(at, rest) __attribute__((format(printf, at, rest)))
#define NO_RETURN __attribute__((noreturn))
#else
#define LIKE_PRINTF(at, rest)
#define NO_RETURN
#endif
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { MAX_THREADS = 1024 };

/* ---- 1 bytes ------------------------------------------------------------------------------- */

#ifndef COMMON_MALLOC /* the tests count and fail these */
#define COMMON_MALLOC(bytes) malloc(bytes)
#define COMMON_FREE(p, bytes) free(p)
#endif

typedef struct bytes {
    char  *p;
    size_t n, cap;
} bytes;

static void bytes_free(bytes *b) {
    if (b->p != NULL) {
        explicit_bzero(b->p, b->cap);
        COMMON_FREE(b->p, b->cap);
    }
    b->p = NULL;
    b->n = b->cap = 0;
}

/* Room for more bytes behind n: 1, or 0 when there is no memory (the contents stay). */
static int bytes_reserve(bytes *b, size_t more) {
    if (more <= b->cap - b->n) return 1;
    if (more > SIZE_MAX / 4 - b->n) return 0;
    bytes grown;
    grown.n = b->n;
    grown.cap = b->n + more < 2 * b->cap ? 2 * b->cap : b->n + more < 256 ? 256 : b->n + more;
    grown.p = (char *)COMMON_MALLOC(grown.cap);
    if (grown.p == NULL) return 0;
    if (b->n > 0) memcpy(grown.p, b->p, b->n);
    bytes_free(b); /* not realloc: it would leave the old copy unwiped */
    *b = grown;
    return 1;
}

static int bytes_add(bytes *b, const void *data, size_t n) {
    if (!bytes_reserve(b, n)) return 0;
    if (n > 0) memcpy(b->p + b->n, data, n);
    b->n += n;
    return 1;
}

/* The code point at p and its length; U+FFFD for bytes that are not UTF-8. */
static size_t utf8_next(const char *text, size_t n, uint32_t *code) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char  *p = (const unsigned char *)text;
    size_t more = p[0] < 0x80 ? 0 : p[0] < 0xC2 ? 9 : p[0] < 0xE0 ? 1 : p[0] < 0xF0 ? 2 : 3;
    *code = 0xFFFD;
    if (more == 9 || p[0] > 0xF4) return 1;
    uint32_t c = more == 0 ? p[0] : p[0] & (0x3Fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if (i >= n || (p[i] & 0xC0) != 0x80) return i;
        c = c << 6 | (p[i] & 0x3Fu);
    }
    if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 1;
    *code = c;
    return more + 1;
}

/* Controls, line separators and marks that turn the direction of a terminal's text around. */
static int is_unsafe(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || (c >= 0x200E && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

/* Appends text with unsafe characters as \uXXXX; as the inside of a JSON string if asked. */
static void add_escaped(bytes *b, const char *text, size_t n, int json) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char     code[8];
        size_t   length = utf8_next(text + i, n - i, &c);
        if (is_unsafe(c)) {
            bytes_add(b, code, (size_t)snprintf(code, sizeof code, "\\u%04x", (unsigned)c));
        } else if (c == 0xFFFD) {
            bytes_add(b, "\xEF\xBF\xBD", 3);
        } else {
            if (json && (c == '"' || c == '\\')) bytes_add(b, "\\", 1);
            bytes_add(b, text + i, length);
        }
        i += length;
    }
}

/* ---- 2 program ----------------------------------------------------------------------------- */

enum { END_OK, END_RUN, END_USAGE, END_MODEL, END_DATA, END_CRITERION, END_ROWS };

typedef struct block { /* documents in memory: wiped when the program ends, however it ends */
    struct block *next;
    size_t        n, cap;
} block;

typedef enum option_kind { FLAG, TEXT, INTEGER, REAL, CHOICE, UNNEEDED, LATER } option_kind;

typedef struct option {
    const char *names;   /* "batch-size n_runs": ours, then the reference kit's; - equals _ */
    option_kind kind;
    void       *to;      /* int32_t (FLAG, CHOICE), const char * (TEXT), int64_t, double */
    const char *initial; /* parsed at the start and shown in [brackets]; NULL: neither */
    const char *values;  /* "DIR", or the choices "dynamic|static*"; * comes later */
    double      min, max;
    const char *help;
} option;

typedef struct program {
    const char *name;
    option      options[80];
    int         option_count;
    int64_t     threads, seed;
    int32_t     isa, quiet, log_json, force, follow_links;
    int32_t     input_format, lines;
    const char *text_column, *pair_column, *label_column, *log_path;
    int         log_fd, log_failed, terminal;
    int         bar;            /* columns of the progress bar on the terminal now */
    double      shown, started; /* seconds: progress */
    uint64_t    done_before;    /* steps of an earlier run, which took none of that time */
    uint64_t    failed_rows;
    block      *documents;
    char       *unfinished;     /* temporary file to remove when the program ends */
} program;

static program               self;
static volatile sig_atomic_t stop_signal;

static void on_signal(int number) {
    if (stop_signal != 0) _exit(128 + number);
    stop_signal = number;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Standard descriptors are open, there is no core file, signals set a flag. Trap: with
 * descriptor 1 closed the first file opened becomes stdout. */
static void start_program(const char *name) {
    static const int heeded[] = {SIGINT, SIGTERM, SIGHUP};
    struct rlimit    none = {0, 0};
    struct sigaction on, was;
    self.name = name;
    self.log_fd = -1;
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && /* a closed stdout is no file that --output may name */
            open(fd == 1 ? "/" : "/dev/null", fd == 1 ? O_RDONLY : O_RDWR) != fd) _exit(END_RUN);
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    memset(&on, 0, sizeof on);
    on.sa_handler = on_signal;
    for (int i = 0; i < COUNT(heeded); i++) /* under nohup SIGHUP is ignored, and stays so */
        if (sigaction(heeded[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(heeded[i], &on, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond ulimit -f fails and says why */
    const char *terminal = getenv("TERM"); /* no colour is ever used: NO_COLOR is honoured */
    self.terminal = isatty(2) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    self.started = self.shown = seconds();
}

/* ---- 3 messages ---------------------------------------------------------------------------- */

typedef enum importance { INFO, WARNING, ERROR } importance;

/* Waits for a stream that another program has made non-blocking, or for a signal. */
static void wait_for(int fd, short event) {
    struct pollfd ready = {fd, event, 0};
    poll(&ready, 1, -1);
}

/* A signal ends what goes to stdout: whoever reads it may never read on. */
static void write_all(int fd, const char *p, size_t n, int *failed) {
    while (n > 0) {
        int     stopped = fd == 1 && stop_signal != 0;
        ssize_t done = stopped ? 0 : write(fd, p, n);
        if (done < 0 && errno == EAGAIN) wait_for(fd, POLLOUT);
        else if (done <= 0 && (done == 0 || errno != EINTR)) {
            *failed = stopped ? ECANCELED : done == 0 ? EIO : errno;
            return;
        }
        if (done < 0) continue;
        p += done;
        n -= (size_t)done;
    }
}

static void clear_bar(void) {
    char blank[128];
    int  ignored = 0;
    if (self.bar == 0) return;
    int n = snprintf(blank, sizeof blank, "\r%*s\r", self.bar, "");
    write_all(2, blank, (size_t)n, &ignored);
    self.bar = 0;
}

/* One line for one target: plain on stderr, with the time in a file, or a JSON object. */
static void log_to(int fd, importance level, const char *text, int *failed) {
    static const char *const names[] = {"info", "warning", "error"};
    bytes     line = {NULL, 0, 0};
    char      head[160], when[32];
    time_t    now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int n = self.log_json ? snprintf(head, sizeof head, "{\"time\":\"%s\",\"program\":\"%s\","
                                     "\"level\":\"%s\",\"message\":\"", when, self.name,
                                     names[level])
          : fd != 2       ? snprintf(head, sizeof head, "%s %s %s: ", when, self.name, names[level])
                          : snprintf(head, sizeof head, "%s: %s", self.name,
                                     level == INFO ? "" : level == WARNING ? "warning: " : "");
    bytes_add(&line, head, (size_t)n);
    add_escaped(&line, text, strlen(text), self.log_json);
    bytes_add(&line, self.log_json ? "\"}\n" : "\n", self.log_json ? 3 : 1);
    write_all(fd, line.p, line.n, failed);
    bytes_free(&line);
}

LIKE_PRINTF(2, 3) static void say(importance level, const char *format, ...) {
    char    text[2048];
    int     ignored = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    clear_bar();
    log_to(2, level, text, &ignored);
    if (self.log_fd >= 0) log_to(self.log_fd, level, text, &self.log_failed);
}

static void wipe_documents(void) {
    while (self.documents != NULL) {
        block *gone = self.documents;
        self.documents = gone->next;
        explicit_bzero(gone, sizeof *gone + gone->cap);
        free(gone);
    }
}

NO_RETURN static void finish(int code) {
    clear_bar();
    if (self.unfinished != NULL) unlink(self.unfinished);
    wipe_documents();
    if (self.log_fd >= 0 && (fsync(self.log_fd) != 0 && errno != EINVAL && errno != EROFS))
        self.log_failed = errno;
    if (self.log_fd >= 0 && close(self.log_fd) != 0) self.log_failed = errno;
    self.log_fd = -1;
    if (self.log_failed) say(ERROR, "%s: the log is incomplete: %s", self.log_path,
                             strerror(self.log_failed));
    if (close(1) != 0 && code == END_OK && errno != EBADF) code = END_RUN;
    exit(code == END_OK && self.log_failed ? END_RUN : code);
}

LIKE_PRINTF(2, 3) NO_RETURN static void stop(int code, const char *format, ...) {
    char    text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say(ERROR, "%s", text);
    if (code == END_USAGE) say(ERROR, "try %s --help", self.name);
    finish(code);
}

/* Ends the program when a signal asked for it. */
static void heed_signal(void) {
    if (stop_signal != 0) stop(128 + stop_signal, "stopped by signal %d", (int)stop_signal);
}

static void *checked_realloc(void *p, size_t n) {
    void *grown = realloc(p, n);
    if (grown == NULL) stop(END_RUN, "out of memory");
    return grown;
}

/* A copy of a document that lives until forget_documents or the end of the program. */
static const char *keep_document(const char *text, size_t n) {
    block *b = self.documents;
    if (b == NULL || n > b->cap - b->n) {
        size_t cap = n < 65536 ? 65536 : n;
        b = (block *)malloc(sizeof *b + cap);
        if (b == NULL) stop(END_RUN, "out of memory");
        b->next = self.documents;
        b->n = 0;
        b->cap = cap;
        self.documents = b;
    }
    char *copy = (char *)(b + 1) + b->n;
    if (n > 0) memcpy(copy, text, n);
    b->n += n;
    return copy;
}

static int32_t exit_of(dp_status status, int32_t otherwise) {
    return status == DP_E_MEMORY ? END_RUN : status == DP_E_ISA ? END_USAGE : otherwise;
}

/* Ends the program when the library refused; the sentence is the library's. */
static void require(dp_status status, const dp_error *err, int code) {
    if (status != DP_OK) stop(exit_of(status, code), "%s", err->text);
}

static void library_log(void *ctx, int32_t level, const char *line) {
    (void)ctx;
    say(level == DP_LOG_WARNING ? WARNING : INFO, "%s", line);
}

/* A bar on a terminal, else a line every ten seconds. total 0: not known. */
static void show_progress(uint64_t done, uint64_t total, const char *unit, const char *detail) {
    char   text[120], scale[21];
    int    ignored = 0;
    double now = seconds(), passed = now - self.started;
    if (self.quiet || now - self.shown < (self.terminal ? 0.1 : 10.0)) return;
    self.shown = now;
    double   rate = passed > 0 ? (double)(done - self.done_before) / passed : 0;
    uint64_t left = rate > 0 && total > done ? (uint64_t)((double)(total - done) / rate) : 0;
    for (uint64_t i = 0; i < 20; i++) scale[i] = total > 0 && i * total < done * 20 ? '#' : '.';
    scale[20] = 0;
    int n = total > 0
          ? snprintf(text, sizeof text, "[%s] %" PRIu64 "/%" PRIu64 " %s, %.1f/s, %" PRIu64
                     ":%02" PRIu64 " left%s", scale, done, total, unit, rate, left / 60, left % 60,
                     detail)
          : snprintf(text, sizeof text, "%" PRIu64 " %s, %.1f/s%s", done, unit, rate, detail);
    n = n < COUNT(text) ? n : COUNT(text) - 1;
    clear_bar();
    if (self.terminal) write_all(2, text, (size_t)n, &ignored);
    else say(INFO, "%s", text);
    self.bar = self.terminal ? n : 0;
}

/* ---- 4 files ------------------------------------------------------------------------------- */

typedef struct sink { /* an output; failures end the program, nothing is half there */
    int         fd;
    bytes       b;
    const char *path;
    char       *temporary; /* NULL: a stream, written through */
} sink;

LIKE_PRINTF(1, 2) static char *text_of(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = (char *)checked_realloc(NULL, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

/* The directory part of a path: "." when there is none. Also the name behind it. */
static char *directory_of(const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    *name = slash != NULL ? slash + 1 : path;
    if (slash == NULL) return text_of(".");
    return slash == path ? text_of("/") : text_of("%.*s", (int)(slash - path), path);
}

static int sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = fsync(fd) == 0 || errno == EINVAL ? 0 : -1; /* EINVAL: not known to this system */
    close(fd);
    return result;
}

/* Removes "PREFIX<pid>" files of processes that are dead; one of our own number is as well: in a
 * container every run may have the same. */
static void remove_dead_files(const char *directory, const char *prefix) {
    DIR *dir = opendir(directory);
    if (dir == NULL) return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
        long pid = atol(entry->d_name + strlen(prefix));
        if (pid == (long)getpid() || (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH))
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
}

/* "-", or a name of what stdout is: /dev/stdout, for instance. */
static int is_stdout(const char *path) {
    struct stat a, b;
    return strcmp(path, "-") == 0 || (stat(path, &a) == 0 && fstat(1, &b) == 0 &&
                                      a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

/* Opens PATH for writing: "-" is stdout, a pipe or device is written through, anything else
 * gets a temporary file beside it (of a name that is not too long) that sink_close renames. */
static sink sink_open(const char *path) {
    sink        s = {1, {NULL, 0, 0}, "stdout", NULL};
    struct stat about;
    const char *name;
    if (is_stdout(path)) return s;
    s.path = path;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        stop(END_RUN, "%s: is a directory", path);
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) {
        s.fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        char *directory = directory_of(path, &name), *prefix = text_of(".%.200s.tmp-", name);
        remove_dead_files(directory, prefix);
        s.temporary = text_of("%s/%s%ld", directory, prefix, (long)getpid());
        s.fd = open(s.temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (s.fd >= 0) self.unfinished = s.temporary;
        free(directory);
        free(prefix);
    }
    if (s.fd < 0 && errno == EINTR) heed_signal(); /* a pipe that nobody reads */
    if (s.fd < 0) stop(END_RUN, "%s: cannot be written: %s", path, strerror(errno));
    return s;
}

static void sink_flush(sink *s) {
    int failed = 0;
    write_all(s->fd, s->b.p, s->b.n, &failed);
    s->b.n = 0;
    if (failed == ECANCELED) heed_signal();
    if (failed) stop(END_RUN, "%s: cannot be written: %s", s->path, strerror(failed));
}

static void put(sink *s, const char *text, size_t n) {
    if (!bytes_add(&s->b, text, n)) stop(END_RUN, "out of memory");
    if (s->b.n >= 1 << 20) sink_flush(s);
}

LIKE_PRINTF(2, 3) static void putf(sink *s, const char *format, ...) {
    char    text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(s, text, (size_t)(n < COUNT(text) ? n : COUNT(text) - 1));
}

static void put_json(sink *s, const char *text, size_t n) {
    put(s, "\"", 1);
    if (n > SIZE_MAX / 8 || !bytes_reserve(&s->b, 6 * n)) stop(END_RUN, "out of memory");
    add_escaped(&s->b, text, n, 1); /* a byte becomes six at most */
    put(s, "\"", 1);
}

/* A number as JSON has it: neither nan nor inf. */
static void put_real(sink *s, const char *format, double x) {
    char text[64];
    if (!isfinite(x)) put(s, "null", 4);
    else put(s, text, (size_t)snprintf(text, sizeof text, format, x));
}

/* A cell of CSV (separator ',') or TSV. What a spreadsheet would run as a formula begins with
 * an apostrophe (CWE-1236). */
static void put_cell(sink *s, const char *text, size_t n, char separator) {
    int quote = separator == ',' && n > 0 && (memchr(text, ',', n) || memchr(text, '"', n) ||
                memchr(text, '\n', n) || memchr(text, '\r', n));
    if (quote) put(s, "\"", 1);
    if (n > 0 && text[0] != 0 && strchr("=+-@\t\r", text[0]) != NULL) put(s, "'", 1);
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quote && c == '"') put(s, "\"", 1);
        if (separator == '\t' && (c == '\t' || c == '\n' || c == '\r'))
            put(s, c == '\t' ? "\\t" : c == '\n' ? "\\n" : "\\r", 2);
        else put(s, &c, 1);
    }
    if (quote) put(s, "\"", 1);
}

/* Makes the output durable under its name. */
static void sink_close(sink *s) {
    const char *name;
    sink_flush(s);
    bytes_free(&s->b);
    if (s->fd == 1) return;
    int bad = s->temporary != NULL && fsync(s->fd) != 0;
    if (close(s->fd) != 0 || bad) stop(END_RUN, "%s: cannot be written: %s", s->path,
                                       strerror(errno));
    if (s->temporary == NULL) return;
    char *directory = directory_of(s->path, &name);
    if (rename(s->temporary, s->path) != 0 || sync_directory(directory) != 0)
        stop(END_RUN, "%s: cannot be put in place: %s", s->path, strerror(errno));
    free(directory);
    free(s->temporary);
    self.unfinished = NULL;
}

/* The bytes of a file ("-": stdin); ends the program with CODE when that is impossible. */
static bytes read_file(const char *path, size_t limit, int code) {
    bytes       b = {NULL, 0, 0};
    struct stat about;
    int fd = strcmp(path, "-") == 0 ? 0 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == EINTR) heed_signal(); /* a pipe that nobody writes */
    if (fd < 0) stop(code, "%s: cannot be read: %s", path, strerror(errno));
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (uint64_t)about.st_size < limit &&
        !bytes_reserve(&b, (size_t)about.st_size + 1)) stop(END_RUN, "out of memory");
    for (ssize_t n = 1; n > 0;) {
        if (!bytes_reserve(&b, 65536)) stop(END_RUN, "out of memory");
        n = read(fd, b.p + b.n, b.cap - b.n);
        heed_signal();
        if (n < 0 && errno != EINTR) stop(code, "%s: cannot be read: %s", path, strerror(errno));
        if (n > 0) b.n += (size_t)n;
        if (b.n > limit) stop(code, "%s: is larger than %zu bytes", path, limit);
    }
    if (fd != 0) close(fd);
    return b;
}

/* ---- 5 options ----------------------------------------------------------------------------- */

/* Does a blank-separated list of names hold this one? - and _ are the same. */
static int has_name(const char *names, const char *name, size_t n) {
    for (size_t i = 0;; names++) {
        int at_end = *names == 0 || *names == ' ';
        if (at_end && i == n) return 1;
        if (*names == 0) return 0;
        if (at_end) i = 0;
        else if (i <= n) {
            int same = i < n && (*names == name[i] || (*names == '-' && name[i] == '_') ||
                                 (*names == '_' && name[i] == '-'));
            i = same ? i + 1 : n + 1;
        }
    }
}

/* Insertions, deletions and changes that turn a into b. */
static size_t edit_distance(const char *a, size_t a_n, const char *b, size_t b_n) {
    size_t row[64];
    if (a_n >= COUNT(row) || b_n >= COUNT(row)) return SIZE_MAX;
    for (size_t j = 0; j <= b_n; j++) row[j] = j;
    for (size_t i = 1; i <= a_n; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_n; j++) {
            size_t change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            if (row[j - 1] + 1 < change) change = row[j - 1] + 1;
            row[j] = corner + 1 < change ? corner + 1 : change;
        }
    }
    return row[b_n];
}

NO_RETURN static void unknown_option(const char *name, size_t n) {
    size_t      least = SIZE_MAX, best_n = 0;
    const char *best = "";
    for (int i = 0; i < self.option_count; i++) {
        for (const char *at = self.options[i].names; *at != 0; at += *at == ' ') {
            size_t length = strcspn(at, " "), d = edit_distance(name, n, at, length);
            if (d < least) {
                least = d;
                best = at;
                best_n = length;
            }
            at += length;
        }
    }
    if (least > n / 2) stop(END_USAGE, "unknown option --%.*s", (int)n, name);
    stop(END_USAGE, "unknown option --%.*s; did you mean --%.*s?", (int)n, name, (int)best_n, best);
}

static double parse_number(const option *o, const char *value) {
    char  *end;
    double x = strtod(value, &end);
    size_t plain = strspn(value, o->kind == INTEGER ? "0123456789-" : "0123456789+-.eE");
    if (*value == 0 || *end != 0 || plain != strlen(value) || !isfinite(x))
        stop(END_USAGE, "--%.*s: '%.40s' is not %s", (int)strcspn(o->names, " "), o->names, value,
             o->kind == INTEGER ? "an integer" : "a number");
    if (x < o->min || x > o->max)
        stop(END_USAGE, "--%.*s: %.40s is not within %.16g and %.16g",
             (int)strcspn(o->names, " "), o->names, value, o->min, o->max);
    return x;
}

/* The place of a value in "dynamic|static*"; a star says that the choice comes later. */
static int32_t parse_choice(const option *o, const char *value) {
    int     name_n = (int)strcspn(o->names, " ");
    int32_t index = 0;
    for (const char *at = o->values; *at != 0; index++) {
        size_t n = strcspn(at, "|*");
        if (strlen(value) == n && memcmp(at, value, n) == 0) {
            if (at[n] == '*') stop(END_USAGE, "--%.*s %s is not available in this version",
                                   name_n, o->names, value);
            return index;
        }
        at += n + (at[n] == '*');
        at += *at == '|';
    }
    stop(END_USAGE, "--%.*s: '%.40s' is not one of %s", name_n, o->names, value, o->values);
}

static void set_option(const option *o, const char *value) {
    double  number = o->kind == INTEGER || o->kind == REAL ? parse_number(o, value) : 0;
    int32_t choice = o->kind == CHOICE ? parse_choice(o, value) : 1;
    int64_t whole = (int64_t)number;
    if (o->kind == TEXT) memcpy(o->to, &value, sizeof value);
    if (o->kind == INTEGER) memcpy(o->to, &whole, sizeof whole);
    if (o->kind == REAL) memcpy(o->to, &number, sizeof number);
    if (o->kind == CHOICE || o->kind == FLAG) memcpy(o->to, &choice, sizeof choice);
}

static void print_help(const char *usage) {
    sink out = sink_open("-");
    putf(&out, "%s\n", usage);
    for (int i = 0; i < self.option_count; i++) {
        const option *o = &self.options[i];
        int           n = (int)strcspn(o->names, " ");
        char         *left = text_of("--%.*s %s", n, o->names, o->values != NULL ? o->values : "");
        putf(&out, strlen(left) > 26 ? "  %s\n%30s" : "  %-28s%s", left, "");
        putf(&out, "%s", o->kind == LATER ? "not available in this version" : o->help);
        if (o->initial != NULL) putf(&out, " [%s]", o->initial);
        if (o->values != NULL && strchr(o->values, '*')) putf(&out, " (*: not in this version)");
        if (o->names[n] != 0) putf(&out, " (kit: --%s)", o->names + n + 1);
        put(&out, "\n", 1);
        free(left);
    }
    sink_close(&out);
    finish(END_OK);
}

static void print_version(void) {
    sink   out = sink_open("-");
    dp_isa best = dp_isa_best();
    int    version = dp_version();
    putf(&out, "%s %d.%d.%d\n", self.name, version / 10000, version / 100 % 100, version % 100);
#if defined(__clang__)
    putf(&out, "compiler: clang %d.%d.%d\n", __clang_major__, __clang_minor__,
         __clang_patchlevel__);
#elif defined(__TINYC__)
    putf(&out, "compiler: tcc 0.%d.%d\n", __TINYC__ / 100, __TINYC__ % 100);
#elif defined(__GNUC__)
    putf(&out, "compiler: gcc %d.%d.%d\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#else
    putf(&out, "compiler: neither gcc nor clang nor tcc\n");
#endif
    putf(&out, "instruction set: %s\n", dp_isa_name(best));
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        const char *missing = dp_isa_missing((dp_isa)isa);
        putf(&out, "  %-12s %s\n", dp_isa_name((dp_isa)isa),
             isa == (int)best ? "selected" : missing == NULL ? "available" : missing);
    }
    sink_close(&out);
    finish(END_OK);
}

/* The value behind option argv[*at]: after "=", or the next argument. */
static const char *option_value(const char *name, size_t n, char **argv, int argc, int *at) {
    if (name[n] == '=') return name + n + 1;
    if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
        stop(END_USAGE, "--%.*s needs a value", (int)n, name);
    return argv[++*at];
}

static void parse_argument(char **argv, int argc, int *at, const char *usage) {
    const char   *name = argv[*at] + 2;
    size_t        n = strcspn(argv[*at], "=") - 2;
    const option *o = NULL;
    if (strncmp(argv[*at], "--", 2) != 0 || argv[*at][2] == 0)
        stop(END_USAGE, "argument %d is not an option", *at);
    if (has_name("help", name, n)) print_help(usage);
    if (has_name("version", name, n)) print_version();
    for (int i = 0; i < self.option_count && o == NULL; i++)
        if (has_name(self.options[i].names, name, n)) o = &self.options[i];
    if (o == NULL) unknown_option(name, n);
    if (o->kind == LATER) stop(END_USAGE, "--%.*s is not available in this version: %s", (int)n,
                               name, o->help);
    if (o->kind == FLAG || o->kind == UNNEEDED) {
        if (name[n] == '=') stop(END_USAGE, "--%.*s takes no value", (int)n, name);
        if (o->kind == FLAG) set_option(o, NULL);
        return;
    }
    const char *value = option_value(name, n, argv, argc, at);
    if (*value == 0) stop(END_USAGE, "--%.*s needs a value", (int)n, name);
    set_option(o, value);
}

static void common_options(void) {
    static const option rows[] = {
        {"input-format", CHOICE, &self.input_format, "auto", "auto|csv|jsonl|lines", 0, 0,
         "by extension, then by the first byte"},
        {"lines", FLAG, &self.lines, NULL, NULL, 0, 0, "the input is plain lines, a text each"},
        {"text-column", TEXT, &self.text_column, NULL, "NAME", 0, 0,
         "column or key of the text [symptoms, else text]"},
        {"pair-column", TEXT, &self.pair_column, NULL, "NAME", 0, 0,
         "column or key of a second segment [none]"},
        {"label-column", TEXT, &self.label_column, NULL, "NAME", 0, 0,
         "column or key of the label [prognosis, else label]"},
        {"threads", INTEGER, &self.threads, "0", "N", 0, MAX_THREADS,
         "0: physical cores within affinity and quota"},
        {"isa", CHOICE, &self.isa, "auto",
         "auto|scalar|avx2|avx-vnni|avx512|avx512-vnni|avx512-bf16|amx", 0, 0,
         "highest instruction set to use"},
        {"seed", INTEGER, &self.seed, "0", "N", 0, 9007199254740991.0, "of everything random"},
        {"force", FLAG, &self.force, NULL, NULL, 0, 0, "replace an existing output"},
        {"follow-links", FLAG, &self.follow_links, NULL, NULL, 0, 0,
         "follow links inside a model directory"},
        {"quiet", FLAG, &self.quiet, NULL, NULL, 0, 0, "no progress"},
        {"logfile", TEXT, &self.log_path, NULL, "F", 0, 0, "log to a file as well"},
        {"log-json", FLAG, &self.log_json, NULL, NULL, 0, 0, "log one JSON object a line"},
        {"intel", UNNEEDED, NULL, NULL, NULL, 0, 0, "accepted, unneeded"},
        {"help", UNNEEDED, NULL, NULL, NULL, 0, 0, "this list"},
        {"version", UNNEEDED, NULL, NULL, NULL, 0, 0, "version, compiler, instruction sets"},
    };
    for (int i = 0; i < COUNT(rows); i++) self.options[self.option_count++] = rows[i];
}

/* A column has one meaning. */
static void refuse_shared_columns(void) {
    const char *names[] = {self.text_column, self.pair_column, self.label_column};
    for (int i = 0; i < COUNT(names); i++)
        for (int k = 0; k < i; k++)
            if (names[i] != NULL && names[k] != NULL && strcmp(names[i], names[k]) == 0)
                stop(END_USAGE, "--text-column, --pair-column, --label-column: two name '%.40s'",
                     names[i]);
}

/* Reads the command line into the places that the table names. USAGE: a line and an example. */
static void parse_options(int argc, char **argv, const option *rows, int count,
                          const char *usage) {
    int ignored = 0;
    for (int i = 0; i < count; i++) self.options[self.option_count++] = rows[i];
    common_options();
    for (int i = 0; i < self.option_count; i++)
        if (self.options[i].initial != NULL) set_option(&self.options[i], self.options[i].initial);
    if (argc < 2) {
        write_all(2, usage, strlen(usage), &ignored);
        finish(END_USAGE);
    }
    for (int at = 1; at < argc; at++) parse_argument(argv, argc, &at, usage);
    refuse_shared_columns();
    const char *missing = self.isa == DP_ISA_AUTO ? NULL : dp_isa_missing((dp_isa)self.isa);
    if (missing != NULL)
        stop(END_USAGE, "--isa %s: %s", dp_isa_name((dp_isa)self.isa), missing);
}

/* "options":{...}: every option with the value that this run used; null: not given. */
static void put_options(sink *s) {
    put(s, "\"options\":{", 11);
    for (int i = 0, first = 1; i < self.option_count; i++) {
        const option *o = &self.options[i];
        double        real = 0;
        int64_t       whole = 0;
        int32_t       small = 0;
        const char   *text = NULL;
        if (o->kind == UNNEEDED || o->kind == LATER) continue;
        putf(s, "%s\"%.*s\":", first ? "" : ",", (int)strcspn(o->names, " "), o->names);
        first = 0;
        if (o->kind == REAL) memcpy(&real, o->to, sizeof real);
        if (o->kind == INTEGER) memcpy(&whole, o->to, sizeof whole);
        if (o->kind == CHOICE || o->kind == FLAG) memcpy(&small, o->to, sizeof small);
        if (o->kind == TEXT) memcpy(&text, o->to, sizeof text);
        if (o->kind == REAL) put_real(s, "%.17g", real < o->min ? (double)NAN : real);
        if (o->kind == INTEGER) putf(s, "%" PRId64, whole);
        if (o->kind == FLAG) putf(s, "%s", small ? "true" : "false");
        if (o->kind == TEXT && text == NULL) put(s, "null", 4);
        if (o->kind == TEXT && text != NULL) put_json(s, text, strlen(text));
        if (o->kind == CHOICE) {
            const char *at = o->values;
            for (; small > 0; small--) at = strchr(at, '|') + 1;
            put_json(s, at, strcspn(at, "|*"));
        }
    }
    put(s, "}", 1);
}

/* ---- 6 machine ----------------------------------------------------------------------------- */

/* The numbers at the beginning of a small file: how many of the two were read. */
static int read_numbers(const char *path, double *a, double *b) {
    char text[128];
    int  fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    return sscanf(text, "%lf %lf", a, b);
}

/* Processor time that a control group grants, in cores; as many as wanted without a limit. */
static double quota_of(const char *group, double wanted) {
    double quota = 0, period = 0, ignored;
    char  *v2 = text_of("/sys/fs/cgroup%s/cpu.max", group);
    char  *v1 = text_of("/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
    char  *v1_period = text_of("/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
    int    known = read_numbers(v2, &quota, &period) == 2 ||
                   (read_numbers(v1, &quota, &ignored) > 0 &&
                    read_numbers(v1_period, &period, &ignored) > 0);
    free(v2);
    free(v1);
    free(v1_period);
    return known && quota > 0 && period > 0 && quota / period < wanted ? quota / period : wanted;
}

/* The least quota of this process's control group and of those above it. */
static double quota(double wanted) {
    char  line[4096];
    FILE *groups = fopen("/proc/self/cgroup", "re");
    wanted = quota_of("", wanted);
    while (groups != NULL && fgets(line, sizeof line, groups) != NULL) {
        char *path = strchr(line, '/');
        if (path == NULL || (strstr(line, "::") == NULL && strstr(line, "cpu") == NULL)) continue;
        path[strcspn(path, "\n")] = 0;
        for (char *end = path + strlen(path); end > path; end = strrchr(path, '/')) {
            *end = 0;
            wanted = quota_of(path, wanted);
        }
    }
    if (groups != NULL) fclose(groups);
    return wanted;
}

/* Physical cores that this process may use: hyper-threads share the vector units. */
static int32_t usable_cores(void) {
    static unsigned char counted[CPU_SETSIZE];
    cpu_set_t            set;
    double               cores = 0, first, ignored;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    memset(counted, 0, sizeof counted);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        char  *path = text_of("/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
        size_t core = read_numbers(path, &first, &ignored) > 0 ? (size_t)first : cpu;
        free(path);
        if (core < CPU_SETSIZE && !counted[core]++) cores++;
    }
    cores = quota(cores);
    return cores < 1 ? 1 : cores > (double)MAX_THREADS ? MAX_THREADS : (int32_t)cores;
}

static dp_env environment(void) {
    dp_env env;
    DP_CLEAR(env);
    env.log = library_log;
    env.isa_cap = (dp_isa)self.isa;
    env.threads = self.threads > 0 ? (int32_t)self.threads : usable_cores();
    env.follow_links = self.follow_links;
    errno = 0; /* what the library's files leave there is theirs: require_files() */
    return env;
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif /* COMMON_H */
