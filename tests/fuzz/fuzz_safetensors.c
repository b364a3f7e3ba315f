/* fuzz_safetensors.c -- a whole file, or (first byte odd) a header for which length and data are
 * made to fit; all tensors are read; what is written again has the same tensors. */
#include "parse_fuzz.h"

static void read_all(const dp__store *store, uint64_t file_bytes) {
    uint64_t total = 0;
    dp_error err;
    for (size_t i = 0; i < store->count; i++) {
        const dp__entry *e = store->entries + i;
        size_t size = dp__dtype_bytes(e->dtype), count = size ? (size_t)e->bytes / size : 0;
        MUST(e->begin <= file_bytes && e->bytes <= file_bytes - e->begin);
        MUST(i == 0 || strcmp(store->entries[i - 1].name, e->name) < 0);
        MUST(dp__store_find(store, e->name) == e);
        total += e->bytes;
        char     *raw = (char *)malloc((size_t)e->bytes + 1);
        dp_real  *real = (dp_real *)malloc(count * sizeof(dp_real) + 1);
        dp_status status = dp__store_read(store, e, 0, count, raw, &err);
        MUST(status == (size ? DP_OK : DP_E_UNSUPPORTED));
        status = dp__store_read_real(store, e, 0, count, real, &err);
        MUST(status == DP_OK || status == DP_E_UNSUPPORTED || strcmp(err.rule, "S12") == 0);
        for (size_t k = 0; status == DP_OK && k < count; k++) MUST(real[k] - real[k] == 0);
        free(raw);
        free(real);
    }
    MUST(total <= file_bytes);
}

/* Writes the same tensors again and opens that. */
static void write_again(fuzz *f, const dp__store *store) {
    dp__st_writer w;
    dp_error      err;
    dp__arena     arena;
    dp__store     again;
    size_t        n = store->count;
    for (size_t i = 0; i < n; i++) if (dp__dtype_bytes(store->entries[i].dtype) == 0) return;
    dp__entry *e = (dp__entry *)malloc(n * sizeof *e + 1);
    if (n > 0) memcpy(e, store->entries, n * sizeof *e);
    MUST(dp__st_begin(&w, &f->env, NULL, "model.safetensors", e, n, NULL, &err) == DP_OK);
    for (size_t i = 0; i < n; i++) {
        const dp__entry *from = dp__store_find(store, e[i].name);
        size_t count = (size_t)from->bytes / dp__dtype_bytes(from->dtype);
        char  *raw = (char *)malloc((size_t)from->bytes + 1);
        MUST(dp__store_read(store, from, 0, count, raw, &err) == DP_OK);
        MUST(dp__st_append(&w, &e[i], raw, count, &err) == DP_OK);
        free(raw);
    }
    memory_find(f->files, "model.safetensors")->name[0] = 'x'; /* the old one stays readable */
    MUST(dp__st_end(&w, &err) == DP_OK);
    dp__arena_init(&arena, &f->env.alloc);
    MUST(dp__store_open(&again, &f->env, f->files, &arena, &err) == DP_OK && again.count == n);
    for (size_t i = 0; i < n; i++) {
        const dp__entry *a = store->entries + i, *b = again.entries + i;
        MUST(strcmp(a->name, b->name) == 0 && a->dims == b->dims && a->dtype == b->dtype);
        MUST(a->bytes == b->bytes && memcmp(a->shape, b->shape, sizeof a->shape) == 0);
    }
    dp__store_close(&again);
    dp__arena_free(&arena);
    free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz      f;
    dp__store store;
    if (size < 2 || size > 65536) return 0;
    size_t bytes = size - 1, fill = data[0] & 1 ? data[0] >> 1 : 0;
    char  *file = (char *)calloc(1, bytes + 8 + fill);
    if (data[0] & 1) {
        dp__store_le((uint8_t *)file, 8, bytes);
        memcpy(file + 8, data + 1, bytes);
        bytes += 8 + fill;
    } else {
        memcpy(file, data + 1, bytes);
    }
    fuzz_begin(&f, bytes);
    memory_add(f.files, "model.safetensors", file, bytes);
    dp_status status = dp__store_open(&store, &f.env, f.files, &f.arena, &f.err);
    if (status == DP_OK) {
        read_all(&store, bytes);
        write_again(&f, &store);
    } else {
        MUST(f.err.rule[0] != 0 && store.entries == NULL);
    }
    dp__store_close(&store);
    fuzz_end(&f, status);
    free(file);
    return 0;
}
