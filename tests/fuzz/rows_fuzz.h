/* rows_fuzz.h -- what the fuzz targets of the programs' readers share: the reader in blocks of any
 * size against the reference, and an allocator that aborts above 16 x input + 64 MiB and when
 * text was freed without being wiped. */
#ifndef ROWS_FUZZ_H
#define ROWS_FUZZ_H

#include "parse_fuzz.h"
#include "../reference_json.h"

static fuzz_heap rows_heap;
static size_t    rows_block;

static void *rows_take(size_t n) {
    return fuzz_alloc(&rows_heap, n, 64);
}

static void rows_give(char *p, size_t n) {
    for (size_t i = 0; i < n; i++) MUST(p[i] == 0);
    fuzz_free(&rows_heap, p, n);
}

#define COMMON_MALLOC(n) rows_take(n)
#define COMMON_FREE(p, n) rows_give(p, n)
#define READ_BLOCK rows_block
#define REF_COLUMNS 1100
#include "../../examples/common.h"
#include "../../examples/rows.h"
#include "../reference_rows.h"

typedef void rows_reference(const char *p, size_t n, bytes *to);

/* One input; its first byte is the size of a block, 0: everything in memory. */
static void rows_fuzz(const uint8_t *data, size_t size, const char *path,
                      rows_reference *reference) {
    reader r;
    bytes  got = {NULL, 0, 0}, want = {NULL, 0, 0};
    if (size < 1 || size > 1024) return;
    const char *text = (const char *)data + 1;
    size_t      n = size - 1;
    rows_heap.limit = 16 * size + (64u << 20);
    rows_block = data[0] > 0 ? data[0] : 65536;
    self.pair_column = "pair";
    memset(&r, 0, sizeof r);
    r.path = path;
    r.fd = data[0] > 0 ? memfd_create("rows", 0) : -1;
    if (r.fd >= 0) MUST(write(r.fd, text, n) == (ssize_t)n && lseek(r.fd, 0, SEEK_SET) == 0);
    else MUST(bytes_add(&r.in, text, n));
    transcribe(&r, reader_start(&r, NEED_TEXT | NEED_LABEL), &got);
    MUST(!r.fault.fatal || (r.fault.code == END_DATA && r.fault.place <= n));
    reader_close(&r);
    reference(text, n, &want);
    MUST(got.n == want.n && memcmp(got.p, want.p, got.n) == 0);
    bytes_free(&got);
    bytes_free(&want);
    MUST(rows_heap.live == 0);
}

#endif
