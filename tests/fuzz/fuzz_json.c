/* fuzz_json.c -- the pull parser against the reference reader; what is written again reads the
 * same. */
#include "parse_fuzz.h"
#include "../reference_json.h"

/* The document as the writer would write it; 0 when the parser refuses. Scalars as they stand. */
static int emit(const char *text, size_t size, dp__buffer *out, dp_error *err) {
    dp_json      json;
    size_t       tokens = 0;
    int          whole = 0;
    char        *copy = (char *)malloc(size + 1);
    dp_json_kind last = DP_JSON_OBJECT;
    dp_json_begin(&json, text, size);
    for (;;) {
        if (dp_json_next(&json, err) != DP_OK) break;
        whole = json.kind == DP_JSON_END;
        if (whole) break;
        MUST(++tokens <= size && json.at <= size && json.token + json.length <= json.at);
        int ends = json.kind == DP_JSON_OBJECT_END || json.kind == DP_JSON_ARRAY_END;
        int first = last == DP_JSON_OBJECT || last == DP_JSON_ARRAY || last == DP_JSON_KEY;
        if (!first && !ends) dp__put_text(out, ",");
        last = json.kind;
        if (json.kind == DP_JSON_KEY || json.kind == DP_JSON_STRING) {
            size_t n = 0;
            MUST(dp_json_string(&json, copy, size + 1, &n, err) == DP_OK && n <= json.length);
            dp__put_string(out, copy, n);
            if (json.kind == DP_JSON_KEY) dp__put_text(out, ":");
        } else {
            double d;
            if (json.kind == DP_JSON_NUMBER && dp_json_real(&json, &d, err) == DP_OK) MUST(d == d);
            dp__buffer_add(out, text + json.token, json.length);
        }
    }
    free(copy);
    MUST(!out->failed);
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz        f;
    dp__buffer  once, twice;
    dp_alloc    plain = {dp__default_alloc, dp__default_free, NULL};
    const char *text = (const char *)data;
    if (size > 4096) return 0;
    fuzz_begin(&f, size);
    dp__buffer_init(&once, &plain);
    dp__buffer_init(&twice, &plain);
    dp_error  err;
    ref      *tree = ref_parse(data, size);
    dp__doc   d = dp__doc_new(&f.arena, "f.json", &f.err);
    dp__json_begin(&d.json, text, size);
    dp_status status = dp__doc_check(&d);
    int       whole = emit(text, size, &once, &err);
    MUST((status == DP_OK) == (tree != NULL));
    MUST(whole == (status == DP_OK || strcmp(f.err.rule, "J2") == 0));
    if (status != DP_OK) MUST(f.err.rule[0] == 'J' && f.err.place <= size);
    if (whole) {
        MUST(emit(once.p, once.n, &twice, &err));
        MUST(once.n == twice.n && memcmp(once.p, twice.p, once.n) == 0);
    }
    ref_free(tree);
    dp__buffer_free(&once);
    dp__buffer_free(&twice);
    fuzz_end(&f, status);
    return 0;
}
