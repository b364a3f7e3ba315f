/* fuzz_encode.c -- a document through the tokenizer, all options out of its first bytes: ids and
 * offsets in range and in order, nothing kept beyond max_tokens. */
#include "parse_fuzz.h"

static const char vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nfever\n##er\n##ing\n##a\n##b\n"
    ".\n,\n-\n#\n1\n##1\n"
    "\xC3\xA9\n\xE4\xB8\xAD\n\xE1\x84\x80\n##\xE1\x85\xA1\nno\nrash\n"
    "s\n##s\n\xCF\x83\n##\xCF\x83\n";

/* Ids of the vocabulary; offsets of the same part never go back and end inside it. */
static void check(const dp_encoding *e, const dp__tokenizer *t, const dp_text *text) {
    size_t part[2] = {text->a_bytes, text->b_bytes};
    for (size_t i = 0; i < e->n; i++) {
        MUST(e->ids[i] >= 0 && e->ids[i] < t->vocab.count);
        MUST(e->types[i] == 0 || e->types[i] == 1);
        MUST(e->begin[i] <= e->end[i] && e->end[i] <= part[e->types[i]]);
    }
    const int32_t *special = t->vocab.special;
    MUST(e->n >= 2 && e->ids[0] == special[DP__CLS] && e->ids[e->n - 1] == special[DP__SEP]);
    MUST(e->n <= e->total && e->unknown <= e->n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz                 f;
    dp__tokenizer_config config;
    dp__tokenizer        t;
    dp__scratch          scratch;
    dp_encode_options    o;
    int32_t              ids[600], types[600];
    uint64_t             begin[600], end[600];
    dp_encoding          e = {ids, types, begin, end, 600, 0, 0, 0, 0};
    if (size < 4) return 0;
    fuzz_begin(&f, size);
    dp__members_usual(dp__tokenizer_members, &config, sizeof config);
    config.lower_case = data[0] & 1;
    config.strip_accents = (int32_t)(data[0] >> 1 & 3) - 1;
    char *copy = (char *)dp__arena_get(&f.arena, sizeof vocab, 1);
    memcpy(copy, vocab, sizeof vocab - 1);
    MUST(dp__tokenizer_init(&t, copy, sizeof vocab - 1, &f.arena, "vocab.txt", &config, 600,
                            NULL) == DP_OK);
    dp__scratch_init(&scratch, &f.env.alloc);
    DP_CLEAR(o);
    o.max_tokens = 3 + (data[1] | (data[0] & 0x40) << 2);
    o.truncation = (dp_truncation)(data[2] & 3);
    o.truncate_left = data[2] >> 2 & 1;
    o.parse_special = data[2] >> 3 & 1;
    size_t  n = size - 4, cut = data[3] * n / 255;
    dp_text text = {(const char *)data + 4, data[2] & 16 ? cut : n, NULL, 0};
    if (data[2] & 16) {
        text.b = (const char *)data + 4 + cut;
        text.b_bytes = n - cut;
    }
    dp_status status = dp__encode(&t, &scratch, &text, &o, &e, &f.err);
    if (status == DP_OK) {
        MUST(e.n <= (size_t)o.max_tokens);
        check(&e, &t, &text);
    } else {
        MUST(status == DP_E_LIMIT || status == DP_E_ARG);
    }
    dp__scratch_free(&scratch);
    fuzz_end(&f, status);
    return 0;
}
