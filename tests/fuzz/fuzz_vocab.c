/* fuzz_vocab.c -- vocab.txt: refused with a rule, or every entry is found again under its id or
 * a later one of the same name, and what would be saved reads the same. */
#include "parse_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz                 f;
    dp__tokenizer_config config;
    dp__vocab            v;
    fuzz_begin(&f, size);
    dp__members_usual(dp__tokenizer_members, &config, sizeof config);
    char *copy = (char *)dp__arena_get(&f.arena, size + 1, 1);
    MUST(copy != NULL);
    memcpy(copy, data, size);
    dp_status status = dp__vocab_parse(&v, copy, size, &f.arena, "vocab.txt", &config, &f.err);
    if (status == DP_OK) {
        MUST(v.count >= 4 && v.text_bytes <= size + 1);
        for (int32_t id = 0; id < v.count; id++) {
            size_t      n;
            const char *entry = dp__vocab_entry(&v, id, &n);
            if (n == 0) continue;
            int32_t     found = dp__vocab_find(&v, entry, n);
            size_t      m;
            MUST(found >= id && found < v.count);
            const char *same = dp__vocab_entry(&v, found, &m);
            MUST(n == m && memcmp(entry, same, n) == 0);
        }
    }
    fuzz_end(&f, status);
    return 0;
}
