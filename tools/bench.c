/* bench.c -- how fast the library is on this machine, against the machine's own limit.
 *
 *   bench [gemm|model|train|tokenize|load|start|all] [--json] [--isa=NAME] [--threads=N]
 *         [--rounds=N] [--rows=N] [--case=TEXT] [--cpu-time]
 *   bench isa ...: one model on every kernel row, side by side; see bench_isa.h
 *
 * Every case (or those whose names contain TEXT) runs in 15 rounds, the cases interleaved. The
 * limit ("peak") is the best of 5 windows of independent multiply-add chains on the same cores,
 * spread over the same rounds; a window lasts 10 ms, because clocks change in less. Chains in
 * registers draw less power than work on data, so they run at a higher clock; a second share is
 * that of a window of 1 ms directly behind the run, before the clock can follow (median).
 * share = work / best time / peak. Work is what is computed, on real tokens only: padding does
 * not exist, and what the last layer leaves out (it asks for [CLS] alone) is not counted.
 * --cpu-time counts the process's own time: for one thread on a machine that others use. INT8
 * products of rows without VNNI stand three times, for any, pair-safe and quad-safe weights, in
 * units of the FP32 peak. */
#define _GNU_SOURCE 1
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

enum { ROUNDS = 15, WINDOWS = 5, MAX_CASES = 64 }; /* rounds: at most, and unless told otherwise */

typedef enum bench_limit { LIMIT_NONE, LIMIT_F32, LIMIT_INT8, LIMIT_BF16 } bench_limit;

typedef struct bench_case {
    char        name[48];
    const char *unit;   /* of work: "flop", "op", "byte", "run" */
    double      work;   /* in one run */
    bench_limit limit;
    void (*run)(void *arg);
    void  *arg;
    int    repeat; /* runs of one round */
    int    rests;  /* 1: one run a round, after a pause in which the workers go to sleep */
    double seconds[ROUNDS], near[ROUNDS]; /* near: share of the limit directly behind the run */
} bench_case;

typedef struct bench {
    dp_env     env;
    dp__exec   exec;
    int        json, rounds;
    size_t     rows;
    const char *only;   /* a part of the names of the cases that run */
    int         ran;    /* 1: a case had it */
    int         quick;  /* bench isa */
    double      seconds;
    const char *csv, *svg;
    double     peak[4]; /* operations per second, by bench_limit */
    bench_case cases[MAX_CASES];
    int        count;
} bench;

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void) {
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *text) {
    fprintf(stderr, "bench: %s\n", text);
    exit(2);
}

static void *get(size_t bytes) {
    void *p = dp__default_alloc(NULL, bytes, 64);
    if (p == NULL) die("out of memory");
    memset(p, 0, bytes);
    return p;
}

#include "bench_peaks.h"

static double window(const bench *b, bench_limit limit, double least) {
    return window_of(&b->exec, chain_of(b->exec.row, limit), least);
}

/* ---- rounds and report ---------------------------------------------------------------------- */

static bench_case *add(bench *b, const char *name, const char *unit, double work,
                       bench_limit limit, void (*run)(void *), void *arg) {
    static bench_case left_out;
    int         wanted = strstr(name, b->only) != NULL;
    bench_case *c = wanted ? &b->cases[b->count++] : &left_out;
    b->ran |= wanted;
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s", name);
    c->unit = unit;
    c->work = work;
    c->limit = limit;
    c->run = run;
    c->arg = arg;
    return c;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void pause_between(void) {
    struct timespec tenth = {0, 100000000};
    nanosleep(&tenth, NULL);
}

static void run_rounds(bench *b, double least) {
    int every = b->rounds > WINDOWS ? b->rounds / WINDOWS : 1;
    for (int i = 0; i < b->count; i++) { /* warm up; enough runs for a round */
        bench_case *c = &b->cases[i];
        c->run(c->arg);
        double start = now();
        c->run(c->arg);
        double once = now() - start;
        c->repeat = !c->rests && once > 0 && once < least ? (int)(least / once) + 1 : 1;
    }
    for (int r = 0; r < b->rounds; r++) {
        for (int i = 0; i < b->count; i++) {
            bench_case *c = &b->cases[i];
            if (c->rests) pause_between();
            double      start = now();
            for (int n = 0; n < c->repeat; n++) c->run(c->arg);
            c->seconds[r] = (now() - start) / c->repeat;
            if (c->limit == LIMIT_NONE) continue;
            c->near[r] = c->work / c->seconds[r] / window(b, c->limit, 0.001);
            double peak = r % every == 0 ? window(b, c->limit, 0.01) : 0;
            if (peak > b->peak[c->limit]) b->peak[c->limit] = peak;
        }
    }
    for (int i = 0; i < b->count; i++) {
        qsort(b->cases[i].seconds, (size_t)b->rounds, sizeof(double), by_value);
        qsort(b->cases[i].near, (size_t)b->rounds, sizeof(double), by_value);
    }
}

static void line(const bench *b, const char *name, const char *unit, double median, double min,
                 double work, double peak, double near) {
    double share = peak > 0 ? work / min / peak : 0;
    if (b->json) {
        printf("{\"case\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"median\":%.6g,\"min\":%.6g,"
               "\"work\":%.6g,\"unit\":\"%s\",\"peak\":%.6g,\"share\":%.4f,"
               "\"share_at_clock\":%.4f}\n",
               name, b->exec.row->name, (int)b->exec.threads, median, min, work, unit, peak, share,
               near);
        return;
    }
    printf("%-28s %-11s %2d thr  median %9.3f ms  min %9.3f ms", name, b->exec.row->name,
           (int)b->exec.threads, median * 1e3, min * 1e3);
    if (peak > 0) printf("  %8.1f G%s/s  peak %8.1f  share %5.1f %%, at its clock %5.1f %%",
                         work / min * 1e-9, unit, peak * 1e-9, share * 100, near * 100);
    else if (work > 0) printf("  %10.4g %s/s", work / min, unit);
    printf("\n");
}

/* Prints all cases, and the mean of those with a limit weighted by work. */
static void report(const bench *b, const char *mean) {
    double work = 0, median = 0, min = 0, peak = 0, limit = 0;
    for (int i = 0; i < b->count; i++) {
        const bench_case *c = &b->cases[i];
        line(b, c->name, c->unit, c->seconds[b->rounds / 2], c->seconds[0], c->work,
             b->peak[c->limit], c->near[b->rounds / 2]);
        if (c->limit != LIMIT_NONE) limit += c->work / c->near[b->rounds / 2];
        work += c->work;
        median += c->seconds[b->rounds / 2];
        min += c->seconds[0];
        peak = b->peak[c->limit];
    }
    if (mean != NULL && b->count > 1)
        line(b, mean, b->cases[0].unit, median, min, work, peak, work / limit);
}

/* ---- gemm: the four products of a BERT-base layer ------------------------------------------- */

static const struct {
    const char *name;
    size_t      n, k;
} shapes[] = {{"qkv", 2304, 768}, {"out", 768, 768}, {"ffn1", 3072, 768}, {"ffn2", 768, 3072}};

typedef struct product {
    const bench *b;
    dp__mm       mm;
    uint8_t     *a16;
} product;

static void run_product(void *arg) {
    const product *p = (const product *)arg;
    dp__matmul(&p->b->exec, &p->mm);
}

static void fill(float *to, size_t n) {
    uint64_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        to[i] = (float)(s >> 40) / 16777216.0f - 0.5f;
    }
}

/* The same with the rounding of a. */
static void run_product16(void *arg) {
    const product *p = (const product *)arg;
    dp__mm         mm = p->mm;
    dp__mat        a = {(float *)(size_t)mm.a, mm.a_row};
    dp__vec        v = dp__rounding_rows(p->b->exec.row, p->a16, mm.a_row * 4, NULL, a, mm.m, mm.k);
    dp__vec_run(&p->b->exec, &v);
    mm.a = (const float *)(void *)p->a16;
    dp__matmul(&p->b->exec, &mm);
}

/* Rows 16 floats longer than they are wide: a stride of 4,096 bytes would use one cache set. */
static void bench_gemm(bench *b, size_t m, int bf16) {
    static product products[4];
    for (int i = 0; i < 4; i++) {
        product *p = &products[i];
        size_t   n = shapes[i].n, k = shapes[i].k;
        float   *a = (float *)get(m * (k + 16) * 4), *w = (float *)get(n * k * 4);
        float   *packed = (float *)get(dp__pack_size(n, k) * 4), *bias = (float *)get(n * 4);
        char     name[48];
        fill(a, m * (k + 16));
        fill(w, n * k);
        size_t panel = dp__row_panel(b->exec.row);
        if (bf16) dp__pack16((uint32_t *)(void *)packed, panel, w, k, n, k);
        else dp__pack(packed, panel, w, k, 1, n, k);
        memset(p, 0, sizeof *p);
        p->mm.panel = panel;
        p->a16 = bf16 ? (uint8_t *)get(m * (k + 16) * 4) : NULL;
        p->mm.b_form = bf16 ? DP__B_BF16 : DP__B_PACKED;
        p->b = b;
        p->mm.c = (float *)get(m * (n + 16) * 4);
        p->mm.ldc = n + 16;
        p->mm.a = a;
        p->mm.a_row = k + 16;
        p->mm.a_k = 1;
        p->mm.b = packed;
        p->mm.m = m;
        p->mm.n = n;
        p->mm.k = k;
        p->mm.bias = bias;
        snprintf(name, sizeof name, "gemm %s%s %ux%ux%u", bf16 ? "bf16 " : "", shapes[i].name,
                 (unsigned)m, (unsigned)n, (unsigned)k);
        add(b, name, "flop", 2.0 * (double)m * (double)n * (double)k,
            bf16 ? LIMIT_BF16 : LIMIT_F32, bf16 ? run_product16 : run_product, p);
    }
    run_rounds(b, 0.01);
    report(b, bf16 ? "gemm bf16 mean" : "gemm mean");
}

/* The same with INT8 weights. Rows of a are an odd number of cache lines, as in a session. */
static void bench_gemm8(bench *b, size_t m, dp_weights weights, const char *kind,
                        bench_limit limit) {
    static const int8_t most[] = {127, 63, 31}; /* codes: 2 or 4 of them stay below 128 */
    static product      products[4];
    char                mean[48];
    for (int i = 0; i < 4; i++) {
        product *p = &products[i];
        size_t   n = shapes[i].n, k = shapes[i].k, a_row = (k / 64 | 1) * 64;
        int8_t  *w = (int8_t *)get(n * k);
        uint8_t *a = (uint8_t *)get(m * a_row);
        void    *packed = get(dp__pack8_bytes(n, k));
        int32_t *comp = (int32_t *)get(n * 4);
        char     name[48];
        for (size_t j = 0; j < n * k; j++)
            w[j] = (int8_t)(j * 2654435761u >> 24 & (size_t)most[weights]);
        for (size_t j = 0; j < m * a_row; j++) a[j] = (uint8_t)(j * 2246822519u >> 24);
        dp__pack8(packed, dp__row_panel(b->exec.row), w, k, n, k);
        dp__compensate(comp, w, k, n, k);
        dp__default_free(NULL, w, 0);
        memset(p, 0, sizeof *p);
        p->b = b;
        p->mm.c = (float *)get(m * (n + 16) * 4);
        p->mm.ldc = n + 16;
        p->mm.a8 = a;
        p->mm.a_row = a_row;
        p->mm.a_scale = (float *)get(m * 4);
        p->mm.b = packed;
        p->mm.b_form = DP__B_INT8;
        p->mm.panel = dp__row_panel(b->exec.row);
        p->mm.scale = (float *)get(n * 4);
        p->mm.comp = comp;
        p->mm.weights = (int)weights;
        p->mm.m = m;
        p->mm.n = n;
        p->mm.k = k;
        p->mm.bias = (float *)get(n * 4);
        snprintf(name, sizeof name, "gemm int8 %s%s %ux%ux%u", kind, shapes[i].name, (unsigned)m,
                 (unsigned)n, (unsigned)k);
        add(b, name, "op", 2.0 * (double)m * (double)n * (double)k, limit, run_product, p);
    }
    run_rounds(b, 0.01);
    snprintf(mean, sizeof mean, "gemm int8 %smean", kind);
    report(b, mean);
}

/* One kernel for all weights, or one for each kind. */
static void bench_int8(bench *b, size_t m) {
    static const char *const kinds[] = {"any ", "pairs ", "quads "};
    const dp__kernel        *kernels = b->exec.row->i8;
    if (kernels[DP_WEIGHTS_FULL].run == kernels[DP_WEIGHTS_QUADS].run) {
        bench_gemm8(b, m, DP_WEIGHTS_FULL, "", LIMIT_INT8);
        return;
    }
    for (int weights = DP_WEIGHTS_FULL; weights <= DP_WEIGHTS_QUADS; weights++) {
        b->count = 0;
        bench_gemm8(b, m, (dp_weights)weights, kinds[weights], LIMIT_F32);
    }
}

/* ---- model, train: BERT-base with new weights ------------------------------------------------ */

enum { CLASSES = 4 };

typedef struct geometry {
    int layers, width, heads, inner, vocab;
} geometry;

enum { SMALL_VOCAB = 13 }; /* entries of small_vocab */

static const geometry base = {12, 768, 12, 3072, 28996};
static const geometry minilm = {6, 384, 12, 1536, 28996};
static const char small_vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\npain\nhead\nskin\nblood\n"
                                  "heart\neye\nwater\nnight\n";

static void check(dp_status status, const dp_error *err) {
    if (status != DP_OK) die(err->text);
}

/* The file's bytes and a terminating zero. */
static char *read_file(const char *name, size_t *bytes) {
    FILE *f = fopen(name, "rb");
    if (f == NULL) die("no data/bert-base-cased-vocab.txt: run from the top of the tree");
    char *text = (char *)get(1 << 20);
    *bytes = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static dp_model *model_of(const dp_env *env, const geometry *g) {
    static const char *const labels[CLASSES] = {"one", "two", "three", "four"};
    char                     config[640];
    dp_model_spec            spec;
    dp_model                *model;
    dp_error                 err;
    DP_CLEAR(spec);
    spec.config_bytes = (size_t)snprintf(
        config, sizeof config,
        "{\"architectures\":[\"BertForSequenceClassification\"],\"model_type\":\"bert\","
        "\"hidden_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
        "\"intermediate_size\":%d,\"hidden_act\":\"gelu\",\"vocab_size\":%d,"
        "\"max_position_embeddings\":512,\"type_vocab_size\":2,\"layer_norm_eps\":1e-12,"
        "\"hidden_dropout_prob\":0.1,\"attention_probs_dropout_prob\":0.1,"
        "\"initializer_range\":0.02,\"pad_token_id\":0}",
        g->width, g->layers, g->heads, g->inner, g->vocab);
    spec.config = config;
    char *file = g->vocab == SMALL_VOCAB
                     ? NULL : read_file("data/bert-base-cased-vocab.txt", &spec.vocab_bytes);
    spec.vocab = file != NULL ? file : small_vocab;
    if (file == NULL) spec.vocab_bytes = sizeof small_vocab - 1;
    spec.labels = labels;
    spec.label_count = CLASSES;
    spec.seed = 1;
    check(dp_model_new(env, &spec, &model, &err), &err);
    if (file != NULL) dp__default_free(NULL, file, 1 << 20);
    return model;
}

static dp_model *new_model(const bench *b) {
    return model_of(&b->env, &base);
}

/* Operations of a forward pass over one text of n tokens: of its layers the last computes keys
 * and values of every token, but the rest for [CLS] alone. Vectors are not counted. */
static double pass_work(const geometry *g, double n) {
    double c = g->width, inner = g->inner, linear = 4 * c * c + 2 * c * inner, scores = 2 * n * c;
    double last = n * 2 * c * c + (2 * c * c + 2 * c * inner) + scores;
    double head = c * c + c * (double)CLASSES;
    return 2 * ((g->layers - 1) * n * (linear + scores) + last + head);
}

typedef struct asking {
    dp_session *session;
    size_t      n;
    int32_t     ids[512];
} asking;

static void run_asking(void *arg) {
    asking  *a = (asking *)arg;
    float    prob[CLASSES];
    dp_error err;
    check(dp_predict_ids(a->session, a->ids, NULL, a->n, prob, NULL, NULL, &err), &err);
}

static void bench_model(bench *b) {
    static const bench_limit limits[] = {LIMIT_F32, LIMIT_INT8, LIMIT_BF16};
    static const char *const names[] = {"f32", "int8", "bf16"};
    static asking askings[9];
    dp_model     *f32 = new_model(b), *int8, *bf16;
    dp_session   *session[3];
    dp_error      err;
    dp__source    source = dp__source_net(&f32->net);
    source.bf16 = 1;
    check(dp__model_derive(f32, &f32->config, &source, &bf16, &err), &err);
    check(dp_quantize(f32, NULL, NULL, &int8, NULL, &err), &err);
    check(dp_session_open(f32, NULL, &session[0], &err), &err);
    check(dp_session_open(int8, NULL, &session[1], &err), &err);
    check(dp_session_open(bf16, NULL, &session[2], &err), &err);
    for (size_t i = 0; i < 9; i++) {
        asking *a = &askings[i];
        char    name[48];
        int     rests = i % 3 == 2; /* a text now and then, as in a consultation */
        a->session = session[i / 3];
        a->n = i % 3 ? 64 : 512;
        for (size_t j = 0; j < a->n; j++) a->ids[j] = (int32_t)(1000 + j * 7919 % 27000);
        a->ids[0] = 101;
        a->ids[a->n - 1] = 102;
        snprintf(name, sizeof name, "model base %s %u%s", names[i / 3], (unsigned)a->n,
                 rests ? " rested" : "");
        add(b, name, "flop", pass_work(&base, (double)a->n), limits[i / 3], run_asking, a)->rests =
            rests;
    }
    run_rounds(b, 0.05);
    report(b, NULL);
    for (size_t i = 0; i < 3; i++) dp_session_close(session[i]);
    dp_model_close(int8);
    dp_model_close(bf16);
    dp_model_close(f32);
}

enum { BATCH = 30, TOKENS = 64 };

/* Text number i of n tokens: n - 2 words of one token each, and the two specials. */
static size_t words_text(char *to, size_t i, size_t n) {
    static const char *const words[8] = {"pain", "head", "skin", "blood",
                                         "heart", "eye", "water", "night"};
    size_t bytes = 0;
    for (size_t j = 0; j + 2 < n; j++)
        bytes += (size_t)snprintf(to + bytes, 8, "%s ", words[(i * 31 + j * (i + 1)) % 8]);
    return bytes;
}

typedef struct lesson {
    dp_trainer *trainer;
    dp_dataset  batch;
} lesson;

static void run_lesson(void *arg) {
    lesson  *l = (lesson *)arg;
    dp_error err;
    check(dp_train_step(l->trainer, &l->batch, NULL, &err), &err);
}

/* A trainer of its own and the batch that all share: BATCH texts of so many tokens. */
static void lesson_open(lesson *l, const dp_model *model, size_t tokens, dp_dtype dtype) {
    static char      text[BATCH][TOKENS * 8];
    static dp_text   texts[BATCH];
    static int32_t   labels[BATCH];
    dp_train_options options;
    dp_encoding      e;
    dp_error         err;
    int32_t          ids[2 * TOKENS];
    DP_CLEAR(l->batch);
    DP_CLEAR(options);
    options.max_tokens = (int32_t)tokens;
    options.dtype = dtype;
    for (size_t i = 0; i < BATCH; i++) {
        texts[i].a = text[i];
        texts[i].a_bytes = words_text(text[i], i, tokens);
        labels[i] = (int32_t)(i % CLASSES);
        memset(&e, 0, sizeof e);
        e.ids = ids;
        e.cap = 2 * TOKENS;
        check(dp_encode(model, &texts[i], NULL, &e, &err), &err);
        if (e.total != tokens) die("a text of the training case has another number of tokens");
    }
    l->batch.rows = BATCH;
    l->batch.texts = texts;
    l->batch.labels = labels;
    check(dp_trainer_open(model, &options, &l->trainer, &err), &err);
}

static void bench_lessons(bench *b, const geometry *g, const char *f32_name,
                          const char *bf16_name) {
    dp_model *model = model_of(&b->env, g);
    double    work = 3 * BATCH * pass_work(g, TOKENS);
    lesson    f32, bf16;
    b->count = 0;
    lesson_open(&f32, model, TOKENS, DP_F32);
    lesson_open(&bf16, model, TOKENS, DP_BF16);
    dp_model_close(model);
    add(b, f32_name, "flop", work, LIMIT_F32, run_lesson, &f32);
    add(b, bf16_name, "flop", work, LIMIT_BF16, run_lesson, &bf16);
    run_rounds(b, 0);
    report(b, NULL);
    dp_trainer_close(f32.trainer);
    dp_trainer_close(bf16.trainer);
}

static void bench_train(bench *b) {
    bench_lessons(b, &minilm, "train minilm 30x64", "train bf16 minilm 30x64");
    bench_lessons(b, &base, "train base 30x64", "train bf16 base 30x64");
}

#include "bench_tokenize.h"
#include "bench_isa.h"

/* ---- load, start ---------------------------------------------------------------------------- */

static void run_load(void *arg) {
    dp_model *model;
    dp_error  err;
    check(dp_model_open(&((const bench *)arg)->env, "build/bench_model", &model, &err), &err);
    dp_model_close(model);
}

static void bench_load(bench *b) {
    dp_model     *model = new_model(b);
    dp_model_info info;
    dp_error      err;
    DP_CLEAR(info);
    dp_model_get_info(model, &info);
    check(dp_model_save(model, "build/bench_model", &err), &err);
    dp_model_close(model);
    add(b, "load base f32, warm", "byte", 4.0 * (double)info.parameters, LIMIT_NONE, run_load, b);
    run_rounds(b, 0);
    report(b, NULL);
}

/* From fork to the first byte of the first answer. */
static void run_start(void *arg) {
    int   in[2], out[2], status;
    char  byte;
    (void)arg;
    if (pipe(in) != 0 || pipe(out) != 0) die("no pipe");
    pid_t child = fork();
    if (child < 0) die("no process");
    if (child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execl("build/predict", "predict", "--model", "build/demo/model", "--input", "-",
              "--input-format", "lines", "--format", "jsonl", "--quiet", (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    if (write(in[1], "I have chills and a high fever\n", 31) != 31) die("cannot write");
    if (read(out[0], &byte, 1) != 1) die("predict gave no answer");
    close(in[1]), close(out[0]);
    waitpid(child, &status, 0);
}

static void bench_start(bench *b) {
    if (access("build/predict", X_OK) != 0 || access("build/demo/model/config.json", R_OK) != 0) {
        fprintf(stderr, "bench: start is left out: it needs build/predict and build/demo/model "
                        "(make demo)\n");
        return;
    }
    add(b, "start to first answer", "run", 1, LIMIT_NONE, run_start, NULL);
    run_rounds(b, 0);
    report(b, NULL);
}

/* ---- command line --------------------------------------------------------------------------- */

static dp_isa isa_of(const char *name) {
    for (size_t i = 0; i < DP__ROWS; i++)
        if (strcmp(dp__rows[i].name, name) == 0) return dp__rows[i].isa;
    die("unknown --isa");
    return DP_ISA_AUTO;
}

static void bench_products(bench *b) {
    for (int i = 0; i < (b->rows == 0 ? 6 : 3); i++) {
        size_t m = b->rows != 0 ? b->rows : i < 3 ? 512 : 64;
        b->count = 0;
        if (i % 3 == 1) bench_int8(b, m);
        else bench_gemm(b, m, i % 3 == 2);
    }
}

/* The value of "--name=value" or "--name value", or NULL. */
static const char *value_of(char **argv, int *i, const char *name) {
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0) return NULL;
    if (argv[*i][n] == '=') return argv[*i] + n + 1;
    if (argv[*i][n] != 0) return NULL;
    if (argv[*i + 1] == NULL) die("an option has no value");
    return argv[++*i];
}

static const char usage[] =
    "usage: bench [gemm|model|train|tokenize|load|start|all|isa] [--json] [--isa=NAME] "
    "[--threads=N] [--rounds=N] [--rows=N] [--case=TEXT] [--cpu-time]; isa: [--quick] "
    "[--seconds=N] [--csv=FILE] [--svg=FILE]";

static void read_options(bench *b, int argc, char **argv, int first) {
    b->rounds = -1;
    b->only = "";
    for (int i = first; i < argc; i++) {
        const char *v;
        if (strcmp(argv[i], "--json") == 0) b->json = 1;
        else if (strcmp(argv[i], "--quick") == 0) b->quick = 1;
        else if (strcmp(argv[i], "--cpu-time") == 0) clock_used = CLOCK_PROCESS_CPUTIME_ID;
        else if ((v = value_of(argv, &i, "--isa")) != NULL) b->env.isa_cap = isa_of(v);
        else if ((v = value_of(argv, &i, "--threads")) != NULL) b->env.threads = atoi(v);
        else if ((v = value_of(argv, &i, "--rows")) != NULL) b->rows = (size_t)atoi(v);
        else if ((v = value_of(argv, &i, "--rounds")) != NULL) b->rounds = atoi(v);
        else if ((v = value_of(argv, &i, "--seconds")) != NULL) b->seconds = atof(v);
        else if ((v = value_of(argv, &i, "--case")) != NULL) b->only = v;
        else if ((v = value_of(argv, &i, "--csv")) != NULL) b->csv = v;
        else if ((v = value_of(argv, &i, "--svg")) != NULL) b->svg = v;
        else if (strcmp(argv[i], "--help") == 0) exit(puts(usage) == EOF);
        else die(usage);
    }
    if (b->env.threads < 1 || b->env.threads > DP_MAX_THREADS || b->rows > 1u << 20)
        die("--threads is 1 to 1024, --rows at most 1048576");
    if (clock_used != CLOCK_MONOTONIC && b->env.threads > 1) die("--cpu-time is for one thread");
    if (!(b->seconds > 0)) die("--seconds is above 0");
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(bench *b);
        int most; /* rounds */
    } groups[] = {{"gemm", bench_products, ROUNDS}, {"model", bench_model, ROUNDS},
                  {"train", bench_train, ROUNDS}, {"tokenize", bench_tokenize, ROUNDS},
                  {"load", bench_load, ROUNDS}, {"start", bench_start, ROUNDS},
                  {"isa", bench_isa, MAX_RUNS}};
    static bench b;
    dp_error     err;
    const char  *what = argc > 1 && argv[1][0] != '-' ? argv[1] : "gemm";
    int          known = 0;
    DP_CLEAR(b.env);
    b.env.alloc.alloc = dp__default_alloc;
    b.env.alloc.free = dp__default_free;
    b.env.threads = 1;
    b.seconds = 20;
    read_options(&b, argc, argv, argc > 1 && what == argv[1] ? 2 : 1);
    if (b.rounds == -1) b.rounds = b.quick ? 2 : ROUNDS;
    if (dp__exec_open(&b.exec, &b.env, &err) != DP_OK) die(err.text);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        int all = strcmp(what, "all") == 0 && groups[i].run != bench_isa;
        if (!all && strcmp(what, groups[i].name) != 0) continue;
        if (b.rounds < 1 || b.rounds > groups[i].most) die("--rounds is 1 to 15 (isa: 1000)");
        known = 1;
        b.count = 0;
        groups[i].run(&b);
        fflush(stdout);
    }
    if (!known) die(usage);
    if (!b.ran && b.only[0] != 0) die("no case has the text of --case in its name");
    dp__exec_close(&b.exec);
    return 0;
}
