/* fuzz_index.c -- an index and up to three shards s1, s2, s3. The parts of the input are cut at
 * bytes 0x00: the index, then for each shard one byte, the size of its data, and its header. */
#include "parse_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"model.safetensors.index.json", "s1", "s2", "s3"};
    char  *made[4] = {NULL, NULL, NULL, NULL};
    fuzz   f;
    size_t at = 0, total = 0;
    if (size > 16384) return 0;
    fuzz_begin(&f, size);
    for (int part = 0; part < 4 && at < size; part++) {
        const uint8_t *p = data + at, *zero = (const uint8_t *)memchr(p, 0, size - at);
        size_t n = zero ? (size_t)(zero - p) : size - at, fill = 0;
        at += n + 1;
        if (part > 0 && n > 0) fill = *p++, n--;
        made[part] = (char *)calloc(1, n + 8 + fill);
        if (part > 0) dp__store_le((uint8_t *)made[part], 8, n);
        memcpy(made[part] + (part ? 8 : 0), p, n);
        n += part ? 8 + fill : 0;
        memory_add(f.files, names[part], made[part], n);
        total += n;
    }
    dp__store store;
    dp_status status = dp__store_open(&store, &f.env, f.files, &f.arena, &f.err);
    if (status == DP_OK) {
        uint64_t bytes = 0;
        MUST(store.file_count <= 3);
        for (size_t i = 0; i < store.count; i++) {
            const dp__entry *e = store.entries + i;
            MUST(e->file < store.file_count && dp__store_find(&store, e->name) == e);
            MUST(i == 0 || strcmp(store.entries[i - 1].name, e->name) < 0);
            bytes += e->bytes;
            char b[1];
            if (e->dtype == DP__U8 && e->bytes > 0)
                MUST(dp__store_read(&store, e, e->bytes - 1, 1, b, &f.err) == DP_OK);
        }
        MUST(bytes <= total);
    }
    dp__store_close(&store);
    fuzz_end(&f, status);
    for (int i = 0; i < 4; i++) free(made[i]);
    return 0;
}
