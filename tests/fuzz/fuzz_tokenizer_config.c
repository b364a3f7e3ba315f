/* fuzz_tokenizer_config.c -- tokenizer_config.json: what is accepted is whole, and comes back the
 * same from what is written. */
#include "parse_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz f;
    dp__tokenizer_config a, b;
    dp__buffer out;
    fuzz_begin(&f, size);
    dp__members_usual(dp__tokenizer_members, &a, sizeof a);
    dp__members_usual(dp__tokenizer_members, &b, sizeof b);
    dp_status status = dp__tokenizer_config_parse((const char *)data, size, &f.arena,
                                                  "tokenizer_config.json", &a, &f.err);
    if (status == DP_OK) {
        const char *words[] = {a.unk, a.cls, a.sep, a.pad, a.mask};
        dp_error    err;
        MUST((a.lower_case | 1) == 1 && a.strip_accents >= -1 && a.strip_accents <= 1);
        MUST(a.kind >= -1 && a.kind <= 1 && a.types >= 0 && a.types <= 2);
        for (int i = 0; i < 5; i++) MUST(words[i] != NULL && words[i][0] != 0);
        dp__buffer_init(&out, &f.env.alloc);
        MUST(dp__tokenizer_config_write(&a, 512, &out));
        MUST(dp__tokenizer_config_parse(out.p, out.n, &f.arena, "x", &b, &err) == DP_OK);
        const char *again[] = {b.unk, b.cls, b.sep, b.pad, b.mask};
        for (int i = 0; i < 5; i++) MUST(strcmp(words[i], again[i]) == 0);
        MUST(a.lower_case == b.lower_case && a.strip_accents == b.strip_accents);
        MUST(a.chinese_chars == b.chinese_chars && b.explicit_case);
        MUST(b.kind == (a.kind > 0) && b.types == (a.types == 1));
        MUST(b.max_length == (a.max_length > 0 && a.max_length < 512 ? a.max_length : 512));
        dp__buffer_free(&out);
    } else {
        MUST(a.unk == NULL && f.err.rule[0] != 0);
    }
    fuzz_end(&f, status);
    return 0;
}
