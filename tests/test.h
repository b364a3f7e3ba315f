/* test.h -- what every test file uses: checks, random numbers, guarded buffers, a counting and
 * failing allocator. Included once, by tests/test_main.c, before the test files. */
#ifndef DP_TEST_H
#define DP_TEST_H

#define _GNU_SOURCE 1
#include <assert.h>
#define DP_ASSERT(x) assert(x)
#define DP_MAX_HEADER_BYTES 8000000 /* the real one, 100 MB, would make its test slow */
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

typedef struct test {
    const char *name; /* "group_what_is_shown" */
    void (*run)(void);
} test;

static int         test_failures; /* of the running test */
static uint64_t    test_seed = 1;
static const char *test_isa; /* --isa=NAME, or NULL */
static int         test_skips; /* parts of tests that this machine cannot run */

/* Notes a failure with its place; the test goes on. */
#define CHECK(x) ((x) ? (void)0 : test_fail(__FILE__, __LINE__, #x))
#define FAIL(what) test_fail(__FILE__, __LINE__, what)
#define CHECK_INT(a, b) test_equal(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))
#define CHECK_TEXT(a, b) test_equal_text(__FILE__, __LINE__, #a " == " #b, a, b)

static void test_fail(const char *file, int line, const char *what) {
    test_failures++;
    if (test_failures <= 10) printf("    %s:%d: %s (seed %llu)\n", file, line, what,
                                    (unsigned long long)test_seed);
}

static void test_equal(const char *file, int line, const char *what, long long a, long long b) {
    if (a == b) return;
    test_fail(file, line, what);
    if (test_failures <= 10) printf("        %lld against %lld\n", a, b);
}

static void test_equal_text(const char *file, int line, const char *what, const char *a,
                            const char *b) {
    if (a != NULL && b != NULL && strcmp(a, b) == 0) return;
    test_fail(file, line, what);
    if (test_failures > 10) return;
    printf("        \"%s\" against \"%s\"\n", a ? a : "(null)", b ? b : "(null)");
}

/* 1 if name contains one of the texts in a list separated by commas. */
static int test_listed(const char *list, const char *name) {
    while (*list != 0) {
        size_t n = strcspn(list, ",");
        for (const char *at = name; n > 0 && strlen(at) >= n; at++)
            if (memcmp(at, list, n) == 0) return 1;
        list += n + (list[n] == ',');
    }
    return 0;
}

/* Says what cannot be shown here and why; counted, so that no skip goes unseen. */
static void test_skip(const char *what, const char *why) {
    test_skips++;
    printf("SKIP %s: %s\n", what, why);
}

/* 1: make test-all asks for the long variants (all 2^32 floats, every allocation, ...). */
static int test_long(void) {
    const char *s = getenv("DP_TEST_LONG");
    return s != NULL && *s != 0 && *s != '0';
}

/* 1: a checker slows this run down 3 to 50 times; take fewer cases of the same kinds. */
static int test_light(void) {
    const char *s = getenv("DP_TEST_LIGHT");
#ifdef TEST_EMULATED
    s = "1";
#endif
    return s != NULL && *s != 0 && *s != '0';
}

static double test_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* FNV-1a over bytes: a digest to compare runs by; begin with 0. */
static uint64_t test_digest(uint64_t digest, const void *data, size_t bytes) {
    const unsigned char *p = (const unsigned char *)data;
    if (digest == 0) digest = 0xCBF29CE484222325u;
    for (size_t i = 0; i < bytes; i++) digest = (digest ^ p[i]) * 0x100000001B3u;
    return digest;
}

/* The larger of two, or NaN if one of them is: a greatest error that no NaN can hide from. */
static double test_larger(double a, double b) {
    return a > b || a != a ? a : b;
}

/* SplitMix64: one number from a state; tests own their states. */
static uint64_t test_rnd(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Uniform in [-1, 1). */
static float test_rndf(uint64_t *state) {
    return (float)((double)(test_rnd(state) >> 40) / 8388608.0 - 1.0);
}

/* A buffer whose last byte touches a page that cannot be read; the page before is closed too. */
typedef struct guarded {
    unsigned char *map, *p;
    size_t         map_bytes;
} guarded;

static guarded guarded_new(size_t bytes) {
    guarded g;
    size_t  page = 4096, body = (bytes + page - 1) / page * page;
    g.map_bytes = body + 2 * page;
    g.map = (unsigned char *)mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || (body && mprotect(g.map + page, body, PROT_READ | PROT_WRITE)))
        abort();
    g.p = g.map + page + body - bytes;
    return g;
}

static void guarded_free(guarded *g) {
    munmap(g->map, g->map_bytes);
}

/* Allocator that counts and that fails at the n-th call, once or from there on. */
typedef struct test_heap {
    size_t calls, live_bytes, peak_bytes;
    size_t fail_at;  /* 0: never; n: the n-th call */
    int    for_ever; /* 1: all calls from fail_at on fail */
} test_heap;

static void *test_heap_alloc(void *ctx, size_t bytes, size_t align) {
    test_heap *h = (test_heap *)ctx;
    h->calls++;
    if (h->fail_at && (h->calls == h->fail_at || (h->for_ever && h->calls > h->fail_at)))
        return NULL;
    h->live_bytes += bytes;
    if (h->live_bytes > h->peak_bytes) h->peak_bytes = h->live_bytes;
    return dp__default_alloc(NULL, bytes, align);
}

static void test_heap_free(void *ctx, void *p, size_t bytes) {
    test_heap *h = (test_heap *)ctx;
    h->live_bytes -= bytes;
    dp__default_free(NULL, p, bytes);
}

#endif
