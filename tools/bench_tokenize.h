/* bench_tokenize.h -- bench tokenize: notes of about 1 kB through the tokenizer, in megabytes a
 * second. Included by bench.c. */

enum { NOTES_BYTES = 4 << 20, NOTE_BYTES = 1000 };

typedef struct notes {
    dp__arena     arena;
    dp__tokenizer tokenizer;
    dp__scratch   scratch;
    const char   *text;
    size_t        bytes;
} notes;

static const char *const note_sentences[] = {
    "Pt c/o chest pain x3 days; denies SOB.", "BP 120/80, HR 72, SpO2 98%.", "No known allergies.",
    "Hx: T2DM, HTN, CKD stage 3b (eGFR 38).", "Started metoprolol 25mg PO b.i.d.",
    "Yellowing of the eyes and dark urine since Monday, itching at night.",
    "Patient does not have nodal skin eruptions.", "f/u in 2 weeks w/ CBC & BMP.",
    "Continuous sneezing, shivering and chills, temperature 38.9 C, no rash.",
    "Mother (age 54) had breast cancer; father is well.", "ECG: ST-elevation V2-V4!",
};

/* Sentences of the list and words out of the vocabulary, the frequent ones more often. */
static char *note_text(const dp__vocab *vocab, size_t bytes, int accents) {
    char    *text = (char *)get(bytes + 256);
    uint64_t rng = 1;
    size_t   n = 0;
    while (n < bytes) {
        uint64_t draw = dp__mix64(rng++);
        if (draw % 2 == 0) {
            size_t      count = sizeof note_sentences / sizeof *note_sentences;
            const char *s = note_sentences[(draw >> 8) % count];
            memcpy(text + n, s, strlen(s));
            n += strlen(s);
        } else {
            size_t      length;
            uint64_t    span = (uint64_t)1 << (4 + (draw >> 8) % 11);
            int32_t     id = 1103 + (int32_t)((draw >> 16) % span);
            const char *word = dp__vocab_entry(vocab, id, &length);
            if (length < 2 || word[0] == '#' || length > 40) continue;
            memcpy(text + n, word, length);
            n += length;
            if (accents) memcpy(text + n, "\xC3\xA9", 2), n += 2;
        }
        text[n++] = ' ';
    }
    return text;
}

static void run_notes(void *arg) {
    notes  *t = (notes *)arg;
    int32_t ids[512];
    dp_encode_options o;
    DP_CLEAR(o);
    for (size_t at = 0; at + NOTE_BYTES <= t->bytes; at += NOTE_BYTES) {
        dp_text     text = {t->text + at, NOTE_BYTES, NULL, 0};
        dp_encoding e = {ids, NULL, NULL, NULL, 512, 0, 0, 0, 0};
        if (dp__encode(&t->tokenizer, &t->scratch, &text, &o, &e, NULL) != DP_OK) die("encode");
    }
}

static void bench_tokenize(bench *b) {
    static const char *const names[] = {"tokenize ASCII cased", "tokenize ASCII lower",
                                        "tokenize accents lower"};
    static notes cases[3];
    FILE        *f = fopen("data/bert-base-cased-vocab.txt", "rb");
    char        *vocab = (char *)get(1 << 20);
    if (f == NULL) die("run it from the top directory");
    size_t bytes = fread(vocab, 1, 1 << 20, f);
    fclose(f);
    for (int i = 0; i < 3; i++) {
        notes               *t = &cases[i];
        dp__tokenizer_config config;
        dp__arena_init(&t->arena, &b->env.alloc);
        dp__scratch_init(&t->scratch, &b->env.alloc);
        dp__members_usual(dp__tokenizer_members, &config, sizeof config);
        config.lower_case = i > 0;
        if (dp__tokenizer_init(&t->tokenizer, vocab, bytes, &t->arena, "vocab.txt", &config, 512,
                               NULL) != DP_OK) die("vocabulary");
        t->text = note_text(&t->tokenizer.vocab, NOTES_BYTES, i == 2);
        t->bytes = NOTES_BYTES;
        add(b, names[i], "byte", NOTES_BYTES, LIMIT_NONE, run_notes, t);
    }
    run_rounds(b, 0.05);
    report(b, NULL);
}
