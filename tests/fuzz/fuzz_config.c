/* fuzz_config.c -- config.json: what is accepted keeps the limits, and comes back the same from
 * what is written. */
#include "parse_fuzz.h"

static void check(const dp__config *c) {
    MUST(c->layers >= 1 && c->layers <= DP_MAX_LAYERS && c->heads >= 1 && c->heads <= DP_MAX_HEADS);
    MUST(c->hidden >= 1 && c->hidden <= DP_MAX_HIDDEN && c->hidden % c->heads == 0);
    MUST(c->inner >= 1 && c->inner <= DP_MAX_INNER && c->vocab >= 1 && c->vocab <= DP_MAX_VOCAB);
    MUST(c->positions >= 1 && c->positions <= DP_MAX_POSITIONS);
    MUST(c->types >= 1 && c->types <= DP_MAX_TYPES && c->classes >= 1);
    MUST(c->classes <= DP_MAX_CLASSES && c->pad_id >= 0 && c->pad_id < c->vocab);
    MUST(c->eps > 0 && c->eps <= 0.1f && c->init_range >= 0 && c->init_range <= 1);
    MUST(c->hidden_dropout >= 0 && c->hidden_dropout < 1 && c->attention_dropout >= 0);
    MUST(c->attention_dropout < 1 && c->classifier_dropout >= 0 && c->classifier_dropout < 1);
    for (int32_t i = 0; i < c->classes; i++) {
        MUST(c->labels[i] != NULL);
        for (int32_t k = 0; k < i && i < 100; k++) MUST(strcmp(c->labels[i], c->labels[k]) != 0);
    }
    for (int32_t i = 0; i < c->ignore_count; i++) MUST(c->ignore[i] != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz       f;
    dp__config a, b;
    dp__buffer out;
    dp_alloc   plain = {dp__default_alloc, dp__default_free, NULL};
    fuzz_begin(&f, size);
    dp_status status = dp__config_parse((const char *)data, size, &f.arena, "config.json", &a,
                                        &f.err);
    if (status == DP_OK) {
        dp_error  err;
        dp__arena arena;
        check(&a);
        dp__buffer_init(&out, &plain);
        dp__arena_init(&arena, &plain);
        MUST(dp__config_write(&a, &out));
        if (out.n <= DP_MAX_CONFIG_BYTES) {
            MUST(dp__config_parse(out.p, out.n, &arena, "config.json", &b, &err) == DP_OK);
            MUST(a.ignore_count == b.ignore_count || !a.quantized);
            for (int32_t i = 0; i < a.classes; i++) MUST(strcmp(a.labels[i], b.labels[i]) == 0);
            MUST(b.problem_given);
            b.problem_given = a.problem_given;
            MUST(b.tokenizer == 0); /* the tokenizer's own file says it */
            b.tokenizer = a.tokenizer;
            b.labels = a.labels;
            b.by_name = a.by_name;
            b.ignore = a.ignore;
            b.ignore_count = a.ignore_count;
            MUST(memcmp(&a, &b, sizeof a) == 0);
        }
        dp__arena_free(&arena);
        dp__buffer_free(&out);
    } else {
        MUST(a.labels == NULL && f.err.rule[0] != 0);
    }
    fuzz_end(&f, status);
    return 0;
}
