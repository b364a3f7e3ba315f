/* test_text.c -- tests of part D: token ids and offsets against Hugging Face tokenizers.
 *
 * The vectors are made by tools/gen_vectors_text.py; text_line() below is the twin of its line():
 * both write the same lines, so that only a hash of each line's encodings needs to be stored. */

enum { TEXT_SETTINGS = 5, TEXT_ROOM = 1 << 16 };

/* ---- tokenizers ---------------------------------------------------------------------------- */

typedef struct text_setting {
    const char *vocab;
    int32_t     lower, strip;
} text_setting;
static const text_setting text_settings[TEXT_SETTINGS] = {
    {"data/bert-base-cased-vocab.txt", 0, 0},
    {"data/bert-base-cased-vocab.txt", 1, 1},
    {"tests/vectors/text_uncased_vocab.txt", 1, 1},
    {"data/bert-base-cased-vocab.txt", 0, 1},
    {"data/bert-base-cased-vocab.txt", 1, 0},
};

static char *text_read(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        printf("    %s cannot be opened: run the tests from the top directory\n", path);
        abort();
    }
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *text = (char *)malloc(*bytes + 1);
    if (fread(text, 1, *bytes, f) != *bytes) abort();
    text[*bytes] = 0;
    fclose(f);
    return text;
}

/* The configuration that a directory without tokenizer_config.json has. */
static dp__tokenizer_config text_config(int32_t lower, int32_t strip) {
    dp__tokenizer_config c;
    dp_alloc             alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__arena            arena;
    dp__arena_init(&arena, &alloc);
    dp__members_usual(dp__tokenizer_members, &c, sizeof c);
    dp__arena_free(&arena);
    c.lower_case = lower;
    c.strip_accents = strip;
    return c;
}

/* Tokenizer over a vocabulary in memory. The vocabulary is copied: it is the tokenizer's. */
static dp_status text_open(dp__tokenizer *t, dp__arena *arena, const char *vocab, size_t bytes,
                           int32_t lower, int32_t strip, dp_error *err) {
    dp_alloc             alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__tokenizer_config c = text_config(lower, strip);
    if (arena->alloc.alloc == NULL) dp__arena_init(arena, &alloc);
    char *copy = (char *)dp__arena_get(arena, bytes + 1, 1);
    if (copy == NULL) return DP_E_MEMORY;
    memcpy(copy, vocab, bytes);
    return dp__tokenizer_init(t, copy, bytes, arena, "vocab.txt", &c, TEXT_ROOM, err);
}

typedef struct text_bench {
    dp__arena     arena[TEXT_SETTINGS];
    dp__tokenizer tokenizer[TEXT_SETTINGS];
    dp__scratch   scratch;
    int32_t      *ids, *types;
    uint64_t     *begin, *end;
    char         *words; /* the cased vocabulary, and where its entries start */
    size_t       *start, word_count;
} text_bench;

static void text_bench_open(text_bench *b) {
    dp_alloc alloc = {dp__default_alloc, dp__default_free, NULL};
    memset(b, 0, sizeof *b);
    for (int i = 0; i < TEXT_SETTINGS; i++) {
        size_t   bytes;
        dp_error err;
        char    *vocab = text_read(text_settings[i].vocab, &bytes);
        CHECK(text_open(&b->tokenizer[i], &b->arena[i], vocab, bytes, text_settings[i].lower,
                        text_settings[i].strip, &err) == DP_OK);
        free(vocab);
    }
    dp__scratch_init(&b->scratch, &alloc);
    b->ids = (int32_t *)malloc(TEXT_ROOM * sizeof *b->ids);
    b->types = (int32_t *)malloc(TEXT_ROOM * sizeof *b->types);
    b->begin = (uint64_t *)malloc(TEXT_ROOM * sizeof *b->begin);
    b->end = (uint64_t *)malloc(TEXT_ROOM * sizeof *b->end);
    size_t bytes;
    b->words = text_read(text_settings[0].vocab, &bytes);
    b->start = (size_t *)malloc((bytes + 1) * sizeof *b->start);
    for (size_t i = 0; i < bytes; i++) {
        if (i == 0 || b->words[i - 1] == '\n') b->start[b->word_count++] = i;
    }
    b->start[b->word_count] = bytes;
}

static void text_bench_close(text_bench *b) {
    for (int i = 0; i < TEXT_SETTINGS; i++) dp__arena_free(&b->arena[i]);
    dp__scratch_free(&b->scratch);
    free(b->ids), free(b->types), free(b->begin), free(b->end), free(b->words), free(b->start);
}

static dp_encoding text_encode(text_bench *b, const dp__tokenizer *t, const char *text,
                               size_t bytes) {
    dp_text           part = {text, bytes, NULL, 0};
    dp_encode_options options;
    dp_encoding       e = {b->ids, b->types, b->begin, b->end, TEXT_ROOM, 0, 0, 0, 0};
    DP_CLEAR(options);
    options.max_tokens = TEXT_ROOM;
    CHECK(dp__encode(t, &b->scratch, &part, &options, &e, NULL) == DP_OK);
    return e;
}

static uint32_t text_crc(uint32_t crc, const void *data, size_t bytes) {
    static uint32_t table[256];
    const uint8_t  *p = (const uint8_t *)data;
    for (uint32_t i = 0; i < 256 && table[255] == 0; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (0xEDB88320u & -(table[i] & 1));
    }
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) crc = crc >> 8 ^ table[(crc ^ p[i]) & 255];
    return ~crc;
}

static uint32_t text_crc_number(uint32_t crc, uint64_t v) {
    uint8_t bytes[4];
    dp__store_le(bytes, 4, v);
    return text_crc(crc, bytes, 4);
}

/* Count, ids and, unless characters may move, offsets. */
static uint32_t text_digest(uint32_t crc, const dp_encoding *e, int moving) {
    crc = text_crc_number(crc, e->n);
    for (size_t i = 0; i < e->n; i++) crc = text_crc_number(crc, (uint32_t)e->ids[i]);
    for (size_t i = 0; i < e->n && !moving; i++) {
        crc = text_crc_number(crc, e->begin[i]);
        crc = text_crc_number(crc, e->end[i]);
    }
    return crc;
}

/* ---- the twin of the generator ------------------------------------------------------------- */

static const char *const text_phrases[] = {
    "Itching for a week, a rash on both arms, no fever.", "BP 120/80, HR 72, SpO2 98%.",
    "Pt c/o chest pain x3 days; denies SOB.", "Hx: T2DM, HTN, CKD stage 3b (eGFR 38).",
    "Started metoprolol 25mg PO b.i.d.", "WBC 12.4 k/uL, CRP 88 mg/L", "No known allergies",
    "yellowing of the eyes and dark urine", "continuous sneezing, shivering and chills",
    "Patient does not have nodal skin eruptions.", "ECG: ST-elevation V2-V4!", "temp=38.9C",
    "patient's mother (age 54) had breast cancer", "f/u in 2 weeks w/ CBC & BMP",
    "muscle_wasting, high_fever", "Abnormality of the left ventricle", "~10^9 cells/L",
    "http://example.org/a?b=c#d", "e-mail: nurse@ward-7.example", "50 % -- \"improved\"",
};
static const char *const text_special[] = {"[SEP]", "[CLS]", "[MASK]",    "[PAD]", "[UNK]",
                                           "[sep]", "[unused1]", "##ing", "[SEP",  "SEP]"};
typedef struct text_range {
    uint32_t first, count;
} text_range;
static const text_range text_ranges[11][9] = {
    {{0xC0, 0x190}},
    {{0x370, 0x1C0}},
    {{0x4E00, 0x5200}, {0x3400, 0x19C0}, {0xF900, 0x200}, {0x2B810, 0x20}, {0x2B910, 0x20},
     {0x2F800, 0x220}, {0x20000, 0xA6E0}, {0x3040, 0xC0}},
    {{0xAC00, 11172}, {0xAC00, 11172}, {0x1100, 0x100}},
    {{0, 0}},
    {{0x10, 0x10FFE0}},
    {{0, 0x20000}},
    {{0x2010, 0x50}, {0x3000, 0x20}, {0xFF00, 0x66}, {0x2E00, 0x60}, {0x55A, 6}, {0x966, 0x14}},
    {{0x900, 0x500}, {0x1B00, 0x4C}, {0x1000, 0xA0}, {0xF00, 0x100}},
    {{0x1E00, 0x200}},
    {{0, 0}},
};
static const text_range text_controls[] = {
    {0, 0x21}, {0x7F, 0x22}, {0x2000, 0x70}, {0x1680, 1}, {0x3000, 1}, {0xFEFF, 1}, {0xFFF9, 7},
    {0xE000, 2}, {0xAD, 1}, {0x600, 6}, {0xE0001, 0x7F}, {0xF0000, 2}};
static const text_range text_letters[] = {
    {0x2100, 0x400}, {0x10400, 0x50}, {0x1E900, 0x44}, {0xFB00, 0x50}, {0x1C80, 0x40},
    {0xA640, 0x60}, {0x10A0, 0x60}, {0x13A0, 0x60}, {0xAB70, 0x50}, {0x226E, 2}, {0x338, 1}};
static const text_range text_combining[] = {
    {0x8D4, 14}, {0x1B44, 1}, {0x302E, 2}, {0xA953, 1}, {0x1D165, 2}, {0x1D16D, 6}, {0x1E000, 0x2B},
    {0x1E944, 7}, {0x1D15E, 7}, {0x1D1BB, 6}, {0x300, 0x70}, {0x5B0, 8}, {0x1133E, 16}};

/* Characters with a combining class that are not dropped, and what decomposes to them: in texts
 * with one of these offsets are not compared (the generator says why). */
static const text_range text_moving[] = {
    {0x8D4, 14}, {0x1B44, 1}, {0x1BAA, 1}, {0x1BF2, 2}, {0x1DFB, 1}, {0x302E, 2}, {0xA953, 1},
    {0xA9C0, 1}, {0x111C0, 1}, {0x11235, 1}, {0x1134D, 1}, {0x11442, 1}, {0x11446, 1},
    {0x116B6, 1}, {0x11C3F, 1}, {0x1D15E, 9}, {0x1D16D, 6}, {0x1D1BB, 6}, {0x1E000, 43},
    {0x1E944, 7}};

static int text_moves(const char *text, size_t n) {
    size_t bad = 0;
    for (size_t at = 0; at < n;) {
        uint32_t c;
        at += dp__utf8_get((const uint8_t *)text + at, n - at, &c, &bad);
        for (size_t i = 0; i < sizeof text_moving / sizeof(text_range); i++)
            if (c - text_moving[i].first < text_moving[i].count) return 1;
    }
    return 0;
}

static uint32_t text_below(uint64_t *rng, uint32_t n) {
    return (uint32_t)(test_rnd(rng) % n);
}

static uint32_t text_pick(uint64_t *rng, const text_range *ranges, size_t count) {
    text_range r = ranges[text_below(rng, (uint32_t)count)];
    uint32_t   c = r.first + text_below(rng, r.count);
    return c >= 0xD800 && c < 0xE000 ? c + 0x800 : c;
}

/* One character out of the ranges of a kind. */
static uint32_t text_pick_kind(uint64_t *rng, uint32_t kind) {
    size_t count = 0;
    if (kind == 4) return text_pick(rng, text_controls, sizeof text_controls / sizeof(text_range));
    if (kind == 10) return text_pick(rng, text_letters, sizeof text_letters / sizeof(text_range));
    while (count < 9 && text_ranges[kind][count].count > 0) count++;
    return text_pick(rng, text_ranges[kind], count);
}

typedef struct text_out {
    char   p[65536];
    size_t n;
} text_out;

static void text_put(text_out *o, const void *data, size_t bytes) {
    memcpy(o->p + o->n, data, bytes);
    o->n += bytes;
}

static void text_put_char(text_out *o, uint32_t c) {
    o->n += dp__utf8_put(o->p + o->n, c);
}

static void text_put_byte(text_out *o, uint32_t c) {
    o->p[o->n++] = (char)c;
}

static void text_item_word(text_out *o, uint64_t *rng) {
    uint32_t n = 1 + text_below(rng, 10), upper = text_below(rng, 4), first = text_below(rng, 26);
    for (uint32_t i = 0; i < n; i++)
        text_put_byte(o, (upper == 0 || (upper == 1 && i == 0) ? 65u : 97u) +
                             (first + i * i * 7) % 26);
}

static void text_item_entry(text_out *o, uint64_t *rng, const text_bench *b) {
    size_t      w = text_below(rng, (uint32_t)b->word_count);
    const char *p = b->words + b->start[w];
    size_t      n = b->start[w + 1] - b->start[w] - 1;
    for (size_t i = 0; i < n;) {
        if (i + 1 < n && p[i] == '#' && p[i + 1] == '#') i += 2;
        else text_put_byte(o, (unsigned char)p[i++]);
    }
}

static void text_item_marks(text_out *o, uint64_t *rng) {
    for (uint32_t n = 1 + text_below(rng, 4); n > 0; n--) {
        text_put_byte(o, 97 + text_below(rng, 26));
        for (uint32_t m = text_below(rng, 4); m > 0; m--)
            text_put_char(o, 0x300 + text_below(rng, 0x70));
    }
}

static void text_item_cut(text_out *o, uint64_t *rng) {
    char     c[4];
    uint32_t kind = 1 + text_below(rng, 3);
    size_t   n = dp__utf8_put(c, text_pick_kind(rng, kind));
    text_put(o, c, 1 + text_below(rng, (uint32_t)n));
    text_put_byte(o, 97 + text_below(rng, 26));
}

static void text_item_long(text_out *o, uint64_t *rng) {
    static const char *const units[5] = {"a", "Z", "e\xCC\x81", "\xC3\xA9", "\xEA\xB0\x80"};
    const char              *unit = units[text_below(rng, 5)];
    for (uint32_t n = 94 + text_below(rng, 13); n > 0; n--) text_put(o, unit, strlen(unit));
}

static void text_item(text_out *o, uint64_t *rng, uint32_t kind, const text_bench *b) {
    const char *s;
    switch (kind) {
    case 0: text_item_word(o, rng); return;
    case 1: text_item_entry(o, rng, b); return;
    case 2:
        s = text_phrases[text_below(rng, 20)];
        text_put(o, s, strlen(s));
        return;
    case 3:
        for (uint32_t n = 1 + text_below(rng, 6); n > 0; n--)
            text_put_byte(o, 33 + text_below(rng, 94));
        return;
    case 4: text_item_marks(o, rng); return;
    case 5:
        for (uint32_t n = 1 + text_below(rng, 4); n > 0; n--)
            text_put_byte(o, 128 + text_below(rng, 128));
        return;
    case 6: text_item_cut(o, rng); return;
    case 7:
        s = text_special[text_below(rng, 10)];
        text_put(o, s, strlen(s));
        return;
    case 8: text_item_long(o, rng); return;
    case 9:
        text_put_byte(o, 'a');
        for (uint32_t n = 1 + text_below(rng, 8); n > 0; n--)
            text_put_char(o, text_pick(rng, text_combining,
                                       sizeof text_combining / sizeof(text_range)));
        return;
    default:
        for (uint32_t n = 1 + text_below(rng, 6); n > 0; n--)
            text_put_char(o, text_pick_kind(rng, kind - 10));
        return;
    }
}

static void text_line(text_out *o, uint64_t number, const text_bench *b) {
    static const uint32_t kinds[4] = {4, 14, 21, 21};
    uint64_t              rng = number;
    o->n = 0;
    for (uint32_t n = 1 + text_below(&rng, 24); n > 0; n--) {
        uint32_t kind = text_below(&rng, kinds[number % 4]);
        text_item(o, &rng, kind, b);
        uint32_t gap = text_below(&rng, 10);
        if (gap < 8) text_put_byte(o, gap < 6 ? ' ' : gap == 6 ? '\n' : '\t');
    }
}

/* ---- against Hugging Face ------------------------------------------------------------------ */

/* 20,000 generated lines, five settings each: different ids or offsets must be 0. */
static void test_text_lines(void) {
    static text_bench b;
    static text_out   line;
    size_t            bytes, lines = 0, different = 0;
    char             *file = text_read("tests/vectors/text_lines.txt", &bytes);
    text_bench_open(&b);
    for (char *p = strchr(file, '\n') + 1; *p != 0; p = strchr(p, '\n') + 1, lines++) {
        text_line(&line, lines, &b);
        int      moving = text_moves(line.p, line.n);
        uint32_t crc = text_crc(0, line.p, line.n);
        for (int i = 0; i < TEXT_SETTINGS; i++) {
            dp_encoding e = text_encode(&b, &b.tokenizer[i], line.p, line.n);
            crc = text_digest(crc, &e, moving);
        }
        if (crc == strtoul(p, NULL, 16)) continue;
        if (different++ < 5) printf("    line %u differs\n", (unsigned)lines);
    }
    printf("    %u lines x %d settings, %u different\n", (unsigned)lines, TEXT_SETTINGS,
           (unsigned)different);
    CHECK(lines == 20000 && different == 0);
    text_bench_close(&b);
    free(file);
}

static size_t text_unescape(const char *from, char *to) {
    size_t n = 0;
    while (*from != '\n') {
        unsigned v;
        if (from[0] == '\\' && sscanf(from, "\\x%2x", &v) == 1) {
            to[n++] = (char)v;
            from += 4;
        } else {
            to[n++] = *from++;
        }
    }
    return n;
}

/* Chosen texts with ids and byte offsets written out. */
static void test_text_vectors(void) {
    static text_bench b;
    static char       text[65536];
    size_t            bytes, texts = 0, n = 0;
    unsigned long     invalid = 0;
    int               setting = 0, moving = 0;
    char             *file = text_read("tests/vectors/text_full.txt", &bytes);
    text_bench_open(&b);
    for (char *p = strchr(file, '\n') + 1; *p != 0; p = strchr(p, '\n') + 1) {
        if (p[0] == 'T' || p[0] == 'R') { /* R: offsets are not compared */
            moving = p[0] == 'R';
            char *at;
            invalid = strtoul(p + 2, &at, 10);
            n = text_unescape(at + 1, text);
            texts++;
            setting = 0;
            continue;
        }
        dp_encoding e = text_encode(&b, &b.tokenizer[setting++], text, n);
        CHECK_INT(e.invalid, invalid);
        size_t k = 1;
        for (char *at = p + 2; *at != '\n' && at[-1] != '\n'; k++) {
            long id = strtol(at, &at, 10), from = strtol(at + 1, &at, 10);
            long to = strtol(at + 1, &at, 10);
            if (*at == ' ') at++;
            CHECK(k + 1 < e.n);
            if (k + 1 >= e.n) break;
            CHECK_INT(e.ids[k], id);
            CHECK(moving || (e.begin[k] == (uint64_t)from && e.end[k] == (uint64_t)to));
        }
        CHECK_INT(e.n, k + 1);
    }
    printf("    %u texts\n", (unsigned)texts);
    CHECK(texts > 240);
    text_bench_close(&b);
    free(file);
}

/* A vocabulary that holds every character, alone and as a continuation. */
static char *text_every_vocab(size_t *bytes) {
    char  *v = (char *)malloc(32u << 20), *p = v;
    p += sprintf(p, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
    for (uint32_t c = 0x21; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000) continue;
        p += dp__utf8_put(p, c);
        *p++ = '\n';
        *p++ = '#';
        *p++ = '#';
        p += dp__utf8_put(p, c);
        *p++ = '\n';
    }
    *bytes = (size_t)(p - v);
    return v;
}

/* Every code point alone and between letters; blocks of 256, every 16th of them every day. */
static void test_text_every_code_point(void) {
    static text_bench    b;
    static dp__tokenizer every[4];
    dp__arena            arena[4];
    size_t               bytes, file_bytes, block = 0, blocks = 0, different = 0;
    char                *vocab = text_every_vocab(&bytes);
    char                *file = text_read("tests/vectors/text_points.txt", &file_bytes);
    text_bench_open(&b);
    memset(arena, 0, sizeof arena);
    for (int i = 0; i < 4; i++)
        CHECK(text_open(&every[i], &arena[i], vocab, bytes, i / 2, i % 2, NULL) == DP_OK);
    free(vocab);
    for (char *p = strchr(file, '\n') + 1; *p != 0; p = strchr(p, '\n') + 1, block++) {
        uint32_t crc = 0;
        if ((block >= 0xD8 && block < 0xE0) || (test_light() && block > 16 && block % 16 != 0))
            continue;
        for (int i = 0; i < TEXT_SETTINGS + 4; i++) {
            const dp__tokenizer *t = i < TEXT_SETTINGS ? &b.tokenizer[i]
                                                       : &every[i - TEXT_SETTINGS];
            for (uint32_t c = (uint32_t)block * 256; c < (uint32_t)block * 256 + 256; c++) {
                char        text[6] = "a";
                size_t      n = dp__utf8_put(text + 1, c);
                dp_encoding e = text_encode(&b, t, text + 1, n);
                crc = text_digest(crc, &e, 0);
                text[1 + n] = 'b';
                e = text_encode(&b, t, text, n + 2);
                crc = text_digest(crc, &e, 0);
            }
        }
        blocks++;
        if (crc == strtoul(p, NULL, 16)) continue;
        if (different++ < 5) printf("    block U+%04X differs\n", (unsigned)block * 256);
    }
    printf("    %u blocks of 256 code points x 9 settings, %u different\n", (unsigned)blocks,
           (unsigned)different);
    CHECK(blocks > 250 && different == 0);
    for (int i = 0; i < 4; i++) dp__arena_free(&arena[i]);
    text_bench_close(&b);
    free(file);
}

/* Truncation of single texts and pairs, three strategies, both sides. */
static void test_text_truncation(void) {
    static text_bench b;
    static char       first[4096], second[4096];
    size_t            bytes, rows = 0, start[201], count = 0, wrong = 0;
    char             *file = text_read("tests/vectors/text_truncate.txt", &bytes), joined[8192];
    text_bench_open(&b);
    size_t at = 0;
    for (size_t w = 0; w < b.word_count && count < 200; w++) {
        size_t n = b.start[w + 1] - b.start[w] - 1, k = 0;
        while (k < n && b.words[b.start[w] + k] >= 'a' && b.words[b.start[w] + k] <= 'z') k++;
        if (k < n || n == 0) continue;
        start[count++] = at;
        memcpy(joined + at, b.words + b.start[w], n);
        joined[at + n] = ' ';
        at += n + 1;
    }
    start[200] = at;
    for (char *p = strchr(file, '\n') + 1; *p != 0; p = strchr(p, '\n') + 1, rows++) {
        int      na, nb, most, how, left, n;
        unsigned want;
        CHECK(sscanf(p, "%d %d %d %d %d %d %x", &na, &nb, &most, &how, &left, &n, &want) == 7);
        size_t la = na > 0 ? start[na] - 1 : 0;
        size_t lb = nb > 0 ? start[100 + nb] - start[100] - 1 : 0;
        memcpy(first, joined, la);
        memcpy(second, joined + start[100], lb);
        dp_text           text = {first, la, nb < 0 ? NULL : second, lb};
        dp_encode_options o;
        dp_encoding       e = {b.ids, b.types, b.begin, b.end, TEXT_ROOM, 0, 0, 0, 0};
        DP_CLEAR(o);
        o.max_tokens = most;
        o.truncation = how == 0 ? DP_TRUNCATE_LONGEST_FIRST : how == 1 ? DP_TRUNCATE_FIRST
                                                                       : DP_TRUNCATE_SECOND;
        o.truncate_left = left;
        dp_status status = dp__encode(&b.tokenizer[0], &b.scratch, &text, &o, &e, NULL);
        uint32_t  crc = 0;
        for (size_t i = 0; i < e.n; i++) crc = text_crc_number(crc, (uint32_t)b.ids[i]);
        for (size_t i = 0; i < e.n; i++) crc = text_crc_number(crc, (uint32_t)b.types[i]);
        int same = n < 0 ? status != DP_OK : status == DP_OK && e.n == (size_t)n && crc == want;
        if (!same && wrong++ < 5) printf("    %.40s\n", p);
    }
    printf("    %u cases, %u different\n", (unsigned)rows, (unsigned)wrong);
    CHECK(rows > 7000 && wrong == 0);
    text_bench_close(&b);
    free(file);
}

/* ---- our own rules ------------------------------------------------------------------------- */

/* A special token written in a document is text, unless the caller asks for it. */
static void test_text_special(void) {
    static text_bench b;
    text_bench_open(&b);
    const char       *text = "a [SEP] b";
    dp_text           part = {text, 9, NULL, 0};
    dp_encode_options o;
    dp_encoding       e = text_encode(&b, &b.tokenizer[0], text, 9);
    CHECK(e.n > 5);
    for (size_t i = 1; i + 1 < e.n; i++) CHECK(e.ids[i] != 102);
    DP_CLEAR(o);
    o.parse_special = 1;
    e.cap = TEXT_ROOM;
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_OK);
    CHECK(e.n == 5 && e.ids[2] == 102);
    text_bench_close(&b);
}

/* A document of 10 MB needs memory for max_tokens, not for itself, and no more after warm-up. */
static void test_text_memory(void) {
    test_heap     heap = {0, 0, 0, 0, 0};
    dp_alloc      alloc = {test_heap_alloc, test_heap_free, &heap};
    dp__scratch   scratch;
    dp__arena     arena;
    dp__tokenizer t;
    size_t        bytes, big = 10u << 20;
    int32_t       ids[64];
    char         *vocab = text_read("data/bert-base-cased-vocab.txt", &bytes);
    char         *text = (char *)malloc(big);
    memset(&arena, 0, sizeof arena);
    CHECK(text_open(&t, &arena, vocab, bytes, 1, 1, NULL) == DP_OK);
    for (size_t i = 0; i < big; i++) text[i] = i % 6 == 5 ? ' ' : (char)('a' + i % 23);
    dp__scratch_init(&scratch, &alloc);
    for (int i = 0; i < 3; i++) {
        dp_text           part = {text, big, NULL, 0};
        dp_encode_options o;
        dp_encoding       e = {ids, NULL, NULL, NULL, 64, 0, 0, 0, 0};
        DP_CLEAR(o);
        o.max_tokens = 64;
        CHECK(dp__encode(&t, &scratch, &part, &o, &e, NULL) == DP_OK);
        CHECK(e.n == 64 && e.total > 1000000);
        if (i == 0) heap.calls = 0;
    }
    CHECK_INT(heap.calls, 0);
    CHECK(heap.peak_bytes < 100000);
    dp__scratch_free(&scratch);
    CHECK_INT(heap.live_bytes, 0);
    dp__arena_free(&arena);
    free(vocab), free(text);
}

/* Half a megabyte of one mark, of alternating marks, of one long word: counted, not hung. */
static void test_text_floods(void) {
    static const char *const units[] = {"\xCC\x81\xCC\x96", "a", "\xEA\xB0\x81", "\xE4\xB8\xAD",
                                        "\xF0\x9D\x85\xAE\xE0\xA4\x83", "#", "\x80", "\xF0\x9F"};
    static text_bench b;
    size_t            big = 1u << 19;
    char             *text = (char *)malloc(big + 16);
    text_bench_open(&b);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t n = 0, unit = strlen(units[u]);
        while (n < big) {
            memcpy(text + n, units[u], unit);
            n += unit;
        }
        dp_text           part = {text, n, NULL, 0};
        dp_encode_options o;
        dp_encoding       e = {b.ids, NULL, NULL, NULL, TEXT_ROOM, 0, 0, 0, 0};
        DP_CLEAR(o);
        o.max_tokens = 512;
        CHECK(dp__encode(&b.tokenizer[1], &b.scratch, &part, &o, &e, NULL) == DP_OK);
        CHECK(e.n >= 2 && e.n <= 512);
    }
    text_bench_close(&b);
    free(text);
}

/* Text that ends at a closed page: no byte behind it is read. */
static void test_text_guarded(void) {
    static text_bench b;
    static text_out   line;
    text_bench_open(&b);
    for (uint64_t number = 0; number < 300; number++) {
        text_line(&line, number, &b);
        size_t  cut = line.n - (number % 3 < line.n ? number % 3 : 0);
        guarded g = guarded_new(cut);
        memcpy(g.p, line.p, cut);
        dp_encoding e = text_encode(&b, &b.tokenizer[1], (const char *)g.p, cut);
        uint32_t    crc = text_digest(0, &e, 0);
        e = text_encode(&b, &b.tokenizer[1], line.p, cut);
        CHECK(crc == text_digest(0, &e, 0));
        guarded_free(&g);
    }
    text_bench_close(&b);
}

/* U+1D16D, of class 226, goes behind U+1D165, of class 216. */
static void test_text_order(void) {
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\xF0\x9D\x85\xA5\xF0\x9D\x85\xAD\n";
    static const char text[] = "a\xF0\x9D\x85\xAD\xF0\x9D\x85\xA5 "
                               "a\xF0\x9D\x85\xA5\xF0\x9D\x85\xAD";
    static text_bench b;
    dp__tokenizer     t;
    dp__arena         arena;
    text_bench_open(&b);
    memset(&arena, 0, sizeof arena);
    CHECK(text_open(&t, &arena, vocab, sizeof vocab - 1, 1, 1, NULL) == DP_OK);
    dp_encoding e = text_encode(&b, &t, text, sizeof text - 1);
    CHECK(e.n == 4 && e.ids[1] == 4 && e.ids[2] == 4);
    dp__arena_free(&arena);
    text_bench_close(&b);
}

static void test_text_options(void) {
    static text_bench b;
    static char       big[16];
    dp_encode_options o;
    text_bench_open(&b);
    dp_text     part = {"a b c", 5, NULL, 0};
    dp_encoding e = {b.ids, b.types, b.begin, b.end, 4, 0, 0, 0, 0};
    DP_CLEAR(o);
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_E_SPACE && e.n == 5);
    e.cap = 5;
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_OK);
    o.truncation = DP_TRUNCATE_NEVER;
    o.max_tokens = 4;
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_E_LIMIT);
    o.max_tokens = TEXT_ROOM + 1;
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_E_ARG);
    DP_CLEAR(o);
    part.a = big;
    part.a_bytes = (size_t)DP_MAX_TEXT_BYTES + 1;
    CHECK(dp__encode(&b.tokenizer[0], &b.scratch, &part, &o, &e, NULL) == DP_E_LIMIT);
    text_bench_close(&b);
}

/* ---- vocab.txt ----------------------------------------------------------------------------- */

typedef struct text_bad {
    const char *text;
    size_t      bytes;
    dp_status   code;
    const char *rule;
    uint64_t    place;
} text_bad;
#define TEXT_V(s) s, sizeof(s) - 1

static dp_status text_vocab(const char *text, size_t bytes, const dp_alloc *alloc, uint32_t *digest,
                            dp_error *err) {
    dp__tokenizer_config c = text_config(1, -1);
    dp__arena            arena;
    dp__vocab            v;
    dp__arena_init(&arena, alloc);
    char     *copy = (char *)dp__arena_get(&arena, bytes + 1, 1);
    dp_status status = DP_E_MEMORY;
    if (copy != NULL) {
        memcpy(copy, text, bytes);
        status = dp__vocab_parse(&v, copy, bytes, &arena, "vocab.txt", &c, err);
    }
    *digest = 0;
    for (int32_t id = 0; status == DP_OK && id < v.count; id++) {
        size_t      n;
        const char *entry = dp__vocab_entry(&v, id, &n);
        *digest = text_crc(text_crc_number(*digest, n), entry, n);
        int32_t found = dp__vocab_find(&v, entry, n); /* the last of equal entries */
        CHECK(n == 0 || found >= id);
    }
    for (int first = 0; status == DP_OK && first < 256; first++) { /* no byte leads astray */
        char    word[2] = {(char)first, '['};
        size_t  n = 0;
        int32_t id = dp__vocab_find(&v, word, 2);
        CHECK(id < 0 || (memcmp(dp__vocab_entry(&v, id, &n), word, 2) == 0 && n == 2));
        dp__vocab_match(&v, 0, (const uint8_t *)word, 0, 2, &id);
        CHECK(id < 0 || memcmp(dp__vocab_entry(&v, id, &n), word, n) == 0);
    }
    dp__arena_free(&arena);
    return status;
}

/* What the rule says the digest is: lines, a CR before the LF dropped. */
static uint32_t text_lines_digest(const char *text, size_t bytes) {
    uint32_t digest = 0;
    for (size_t at = 0; at < bytes;) {
        const char *lf = (const char *)memchr(text + at, '\n', bytes - at);
        size_t      end = lf != NULL ? (size_t)(lf - text) : bytes;
        size_t      n = end - at;
        if (n > 0 && text[at + n - 1] == '\r') n--;
        digest = text_crc(text_crc_number(digest, n), text + at, n);
        at = end + 1;
    }
    return digest;
}

static void test_text_vocab_rules(void) {
    static const text_bad bad[] = {
        {TEXT_V(""), DP_E_FORMAT, "V1", DP_NO_PLACE},
        {TEXT_V("\xEF\xBB\xBF[PAD]\n[UNK]\n[CLS]\n[SEP]\n"), DP_E_FORMAT, "V1", 0},
        {TEXT_V("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\0b\n"), DP_E_FORMAT, "V1", 25},
        {TEXT_V("[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xC0\x80\n"), DP_E_FORMAT, "V1", 24},
        {TEXT_V("[PAD]\n[UNK]\n[CLS]\n[SEP]\nab\xE2\x82"), DP_E_FORMAT, "V1", 26},
        {TEXT_V("[PAD]\n[UNK]\n[CLS]\na\n"), DP_E_FORMAT, "V1", DP_NO_PLACE},
        {TEXT_V("[PAD]\n[CLS]\n[SEP]\na\n"), DP_E_FORMAT, "V1", DP_NO_PLACE},
        {TEXT_V("[UNK]\n[CLS]\n[SEP]\na\n"), DP_E_FORMAT, "V1", DP_NO_PLACE},
    };
    dp_alloc alloc = {dp__default_alloc, dp__default_free, NULL};
    uint32_t digest;
    dp_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&err, 0, sizeof err);
        CHECK_INT(text_vocab(bad[i].text, bad[i].bytes, &alloc, &digest, &err), bad[i].code);
        CHECK(strcmp(err.rule, bad[i].rule) == 0);
        if (err.place != bad[i].place) printf("    case %u: %s\n", (unsigned)i, err.text);
        CHECK(err.place == bad[i].place);
    }
    dp__tokenizer_config same = text_config(1, -1);
    dp__arena            arena;
    dp__vocab            v;
    same.sep = same.cls; /* two special tokens are one entry */
    dp__arena_init(&arena, &alloc);
    CHECK(dp__vocab_parse(&v, TEXT_V("[PAD]\n[UNK]\n[CLS]\n"), &arena, "vocab.txt", &same, &err) ==
          DP_E_FORMAT);
    dp__arena_free(&arena);
    static const char good[] = "[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n\na\nb\na";
    CHECK(text_vocab(TEXT_V(good), &alloc, &digest, &err) == DP_OK);
    CHECK(digest == text_lines_digest(TEXT_V(good)));
}

/* Every prefix and every flipped bit: refused with rule V1, or read as the rule says. */
static void test_text_vocab_damage(void) {
    static const char file[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfever\n##er\n##ing\n\n"
                               "\xC3\xA9t\xC3\xA9\n\xE4\xB8\xAD\r\nA\nfever\n\xF0\x9F\x98\x80\n##a";
    dp_alloc          alloc = {dp__default_alloc, dp__default_free, NULL};
    size_t            n = sizeof file - 1, refused = 0, accepted = 0;
    char              copy[sizeof file];
    for (size_t i = 0; i < n + 8 * n; i++) {
        size_t   bytes = i < n ? i : n;
        uint32_t digest;
        dp_error err;
        memcpy(copy, file, n);
        if (i >= n) copy[(i - n) / 8] = (char)(copy[(i - n) / 8] ^ (1 << (i - n) % 8));
        guarded g = guarded_new(bytes);
        memcpy(g.p, copy, bytes);
        dp_status status = text_vocab((const char *)g.p, bytes, &alloc, &digest, &err);
        guarded_free(&g);
        if (status == DP_OK) {
            accepted++;
            CHECK(digest == text_lines_digest(copy, bytes));
        } else {
            refused++;
            CHECK(status == DP_E_FORMAT && strcmp(err.rule, "V1") == 0);
        }
    }
    printf("    %u refused, %u accepted with the expected entries\n", (unsigned)refused,
           (unsigned)accepted);
    CHECK(refused > 150 && accepted > 300);
}

static void test_text_vocab_memory(void) {
    static const char file[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nfever\n##er\n";
    size_t            points = 0;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        for (size_t at = 1;; at++, points++) {
            test_heap heap = {0, 0, 0, at, for_ever};
            dp_alloc  alloc = {test_heap_alloc, test_heap_free, &heap};
            uint32_t  digest;
            dp_status status = text_vocab(TEXT_V(file), &alloc, &digest, NULL);
            CHECK_INT(heap.live_bytes, 0);
            if (heap.calls < at) {
                CHECK(status == DP_OK);
                break;
            }
            CHECK(status == DP_E_MEMORY);
        }
    }
    CHECK(points >= 4);
}

/* The bound of the banner, on long random entries (a node a byte) and on children of bytes that
 * exclude each other: any two sets of them meet in a block of 128 units. */
static void test_text_vocab_bound(void) {
    const size_t room = 600000;
    char        *text = (char *)malloc(room);
    for (int kind = 0; kind < 2; kind++) {
        test_heap heap = {0, 0, 0, 0, 0};
        dp_alloc  alloc = {test_heap_alloc, test_heap_free, &heap};
        uint32_t  digest, state = 1;
        size_t    n = (size_t)sprintf(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
        for (uint32_t i = 0; n < room - 2000; i++) {
            for (uint32_t k = 0; kind == 0 && k < DP_MAX_VOCAB_ENTRY; k++) {
                state = state * 69069 + 1;
                text[n++] = (char)(33 + (state >> 16) % 94);
            }
            for (uint32_t k = 0, x = i / 22; kind == 1 && k < 4; k++, x /= 90)
                text[n++] = (char)(33 + x % 90);
            if (kind == 1) text[n++] = (char)(i % 22 < 14 ? 14 + i % 22 : (i % 22 - 13) * 16 - 1);
            text[n++] = '\n';
        }
        CHECK_INT(text_vocab(text, n, &alloc, &digest, NULL), DP_OK);
        printf("    %.1f times the file\n", (double)heap.peak_bytes / (double)n);
        CHECK(heap.peak_bytes <= 64 * n + 131072 && heap.live_bytes == 0);
    }
    free(text);
}

/* Bytes c, n of them, as a vocabulary that gets no memory: beyond its limits, DP_E_LIMIT, without
 * asking for any; within, DP_E_MEMORY. */
static dp_status text_vocab_starved(char c, size_t n) {
    test_heap heap = {0, 0, 0, 1, 1};
    dp_alloc  alloc = {test_heap_alloc, test_heap_free, &heap};
    dp__arena arena;
    dp__vocab v;
    char     *text = (char *)malloc(n);
    memset(text, c, n);
    dp__tokenizer_config config = text_config(1, -1);
    dp__arena_init(&arena, &alloc);
    dp_status status = dp__vocab_parse(&v, text, n, &arena, "vocab.txt", &config, NULL);
    dp__arena_free(&arena);
    free(text);
    CHECK_INT(heap.calls > 0, status == DP_E_MEMORY);
    return status;
}

/* Limits at L - 1, L, L + 1: bytes of an entry, entries, bytes of the file. */
static void test_text_vocab_limits(void) {
    dp_alloc alloc = {dp__default_alloc, dp__default_free, NULL};
    char    *text = (char *)malloc(DP_MAX_VOCAB_ENTRY + 100);
    for (size_t n = DP_MAX_VOCAB_ENTRY - 1; n <= DP_MAX_VOCAB_ENTRY + 1; n++) {
        uint32_t digest;
        size_t   at = (size_t)sprintf(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
        memset(text + at, 'x', n);
        text[at + n] = '\n';
        dp_status status = text_vocab(text, at + n + 1, &alloc, &digest, NULL);
        CHECK_INT(status, n <= DP_MAX_VOCAB_ENTRY ? DP_OK : DP_E_LIMIT);
    }
    free(text);
    for (int more = -1; more <= 1; more++) {
        dp_status want = more > 0 ? DP_E_LIMIT : DP_E_MEMORY;
        CHECK_INT(text_vocab_starved('\n', (size_t)(DP_MAX_VOCAB + more)), want);
        CHECK_INT(text_vocab_starved('x', (size_t)(DP_MAX_VOCAB_BYTES + more)), want);
    }
}

static const test tests_text[] = {
    {"text_vectors", test_text_vectors},
    {"text_lines", test_text_lines},
    {"text_every_code_point", test_text_every_code_point},
    {"text_truncation", test_text_truncation},
    {"text_special", test_text_special},
    {"text_memory", test_text_memory},
    {"text_floods", test_text_floods},
    {"text_guarded", test_text_guarded},
    {"text_order", test_text_order},
    {"text_options", test_text_options},
    {"text_vocab_rules", test_text_vocab_rules},
    {"text_vocab_damage", test_text_vocab_damage},
    {"text_vocab_memory", test_text_vocab_memory},
    {"text_vocab_bound", test_text_vocab_bound},
    {"text_vocab_limits", test_text_vocab_limits},
};
