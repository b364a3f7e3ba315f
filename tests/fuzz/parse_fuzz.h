/* parse_fuzz.h -- what the fuzz targets of part C share: the header with its assertions, files in
 * memory, and an allocator that aborts above 16 x input + 64 MiB (the promise of the library). */
#ifndef DP_PARSE_FUZZ_H
#define DP_PARSE_FUZZ_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <assert.h>
#define DP_ASSERT(x) assert(x)
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

#include <stdio.h>
#define MEMORY_FILES 8
#include "../memory_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x) ((x) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #x))

static void fuzz_fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

typedef struct fuzz_heap {
    size_t live, limit;
} fuzz_heap;

static void *fuzz_alloc(void *ctx, size_t bytes, size_t align) {
    fuzz_heap *heap = (fuzz_heap *)ctx;
    MUST(bytes <= heap->limit - heap->live);
    heap->live += bytes;
    return dp__default_alloc(NULL, bytes, align);
}

static void fuzz_free(void *ctx, void *p, size_t bytes) {
    MUST(bytes <= ((fuzz_heap *)ctx)->live);
    ((fuzz_heap *)ctx)->live -= bytes;
    dp__default_free(NULL, p, bytes);
}

/* A run: heap, allocator, arena and files for one input. */
typedef struct fuzz {
    fuzz_heap   heap;
    dp_env      env;
    dp__arena   arena;
    memory_dir *files;
    dp_error    err;
} fuzz;

static void fuzz_begin(fuzz *f, size_t size) {
    dp_env in;
    memset(f, 0, sizeof *f);
    f->heap.limit = 16 * size + (64u << 20);
    f->files = memory_new();
    DP_CLEAR(in);
    in.alloc.alloc = fuzz_alloc;
    in.alloc.free = fuzz_free;
    in.alloc.ctx = &f->heap;
    memory_io(f->files, &in.io);
    MUST(dp__env_init(&in, &f->env, &f->err) == DP_OK);
    dp__arena_init(&f->arena, &f->env.alloc);
}

/* Everything is given back; an error says what was broken. */
static void fuzz_end(fuzz *f, dp_status status) {
    dp__arena_free(&f->arena);
    MUST(f->heap.live == 0 && f->files->opened == f->files->closed);
    memory_free(f->files);
    if (status == DP_OK) return;
    MUST(f->err.code == status && f->err.text[0] != 0);
    for (const char *p = f->err.text; *p != 0; p++) MUST(*p >= 32 && *p < 127);
}

#endif
