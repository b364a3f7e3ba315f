/* bench_isa.h -- bench isa: one BERT-base on every kernel row and number format that this CPU runs,
 * side by side. Included by bench.c.
 *
 *   bench isa [--case=TEXT] [--isa=NAME] [--threads=N] [--rounds=N] [--seconds=N] [--quick]
 *             [--json] [--csv=FILE] [--svg=FILE]
 *
 * A variant is a number format on a kernel row; rows that would run the same kernels are one
 * variant. The variants take turns in every round. Behind each run the limit of its instruction
 * is measured for 1 ms and the clock by a chain of additions. A variant ends its rounds early when
 * it has run for --seconds (20); one that would need more for a single run at its limit is left
 * out. Speed is the median against that of FP32 on the best row. --quick: a model of two layers of
 * width 64 and short texts, to see that everything runs. */

enum { MAX_VARIANTS = 24, MAX_TEXTS = 64, MAX_BARS = 256, MAX_RUNS = 1000, WARM_UP = 20 };

typedef struct variant {
    char           name[32]; /* "INT8 avx512-vnni" */
    const char    *dtype;
    const dp__row *row;
    bench_limit    limit;
    chain          chain;
    dp_model      *model;
    dp_session    *session;
    lesson         lesson;
    double         bytes; /* of weights outside the embedding tables */
    double         peak;  /* operations a second, the best window so far */
    /* of the present case */
    int    runs;
    double spent, seconds[MAX_RUNS], near[MAX_RUNS], clock[MAX_RUNS];
    double median, mean, speed;
} variant;

/* What is run: texts of so many tokens in one call, or a training step. */
typedef struct task {
    const char *name, *title;
    const char *lengths; /* "N": each of N tokens; "kit", "mixed": see task_lengths */
    size_t      texts;
    size_t      padded;  /* tokens of each text as the kit computes it, or 0 */
    int         warm_up; /* rounds */
    int         layers;  /* of the model: 12, or 6 for MiniLM's */
    int         train;
} task;

/* The kit warms up twice, the AMX sample 20 times. */
static const task tasks[] = {
    {"short", "one text of 64 tokens", "64", 1, 0, WARM_UP, 12, 0},
    {"kit1", "the kit's protocol: batch 1, 512 tokens", "512", 1, 0, 2, 12, 0},
    {"kit20", "the kit's protocol: batch 20, 512 tokens", "512", 20, 0, 2, 12, 0},
    {"kit30", "the kit's protocol: batch 30, 512 tokens", "512", 30, 0, 2, 12, 0},
    {"padded", "20 texts as long as the kit's", "kit", 20, 512, 2, 12, 0},
    {"stream", "60 texts of 8 to 512 tokens, mixed", "mixed", 60, 0, 2, 12, 0},
    {"train", "training step, 30 texts of 64 tokens, BERT-base", "64", BATCH, 0, 2, 12, 1},
    {"train-minilm", "training step, 30 texts of 64 tokens, MiniLM", "64", BATCH, 0, 2, 6, 1},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

typedef struct bar { /* of the chart */
    const char *task; /* title */
    char        name[32];
    bench_limit limit;
    double      speed;
} bar;

typedef struct comparison {
    bench      *b;
    const task *task; /* the present one */
    geometry    shape;
    char        cpu[96];
    FILE       *csv;
    int         csv_lines;
    variant     variants[MAX_VARIANTS];
    int         count;
    dp_text     texts[MAX_TEXTS];
    size_t      tokens; /* of one run */
    double      work;
    bar         bars[MAX_BARS];
    int         bar_count;
} comparison;

/* ---- variants ------------------------------------------------------------------------------- */

/* Quotes, backslashes and control characters, which no CPU is known to have, become blanks. */
static void cpu_name(char *to, size_t cap) {
    char  line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(to, cap, "unknown CPU");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        snprintf(to, cap, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f != NULL) fclose(f);
    for (char *p = to; *p != 0; p++)
        if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\') *p = ' ';
}

static dp__kernel kernel_of(const dp__row *row, bench_limit limit) {
    if (limit == LIMIT_INT8) return row->i8[DP_WEIGHTS_FULL]; /* what dp_quantize makes */
    return limit == LIMIT_F32 ? row->f32 : row->b16;
}

/* 1: a variant runs the same kernels. */
static int is_known(const comparison *c, const dp__row *row, bench_limit limit) {
    for (int i = 0; i < c->count; i++) {
        const variant *v = &c->variants[i];
        if (v->limit == limit && v->row->vec == row->vec &&
            kernel_of(v->row, limit).run == kernel_of(row, limit).run)
            return 1;
    }
    return 0;
}

/* Every format on every row that runs here, in the order of the rows, FP32 first. */
static void find_variants(comparison *c) {
    static const bench_limit limits[] = {LIMIT_F32, LIMIT_BF16, LIMIT_INT8};
    static const char *const dtypes[] = {"FP32", "BF16", "INT8"};
    for (size_t l = 0; l < 3; l++) {
        for (size_t i = 0; i < DP__ROWS; i++) {
            const dp__row *row = &dp__rows[i];
            dp_isa         cap = c->b->env.isa_cap;
            if (dp_isa_missing(row->isa) != NULL || (cap != DP_ISA_AUTO && row->isa > cap) ||
                is_known(c, row, limits[l]))
                continue;
            if (c->count == MAX_VARIANTS) die("too many kernel rows");
            variant *v = &c->variants[c->count++];
            v->dtype = dtypes[l];
            v->row = row;
            v->limit = limits[l];
            v->chain = chain_of(row, limits[l]);
            snprintf(v->name, sizeof v->name, "%s %s", v->dtype, row->name);
        }
    }
}

/* A model in the variant's format, for its row: new weights, equal in all. */
static void variant_open(const comparison *c, variant *v) {
    dp_env        env = c->b->env;
    dp_model     *f32;
    dp_model_info info;
    dp_error      err;
    env.isa_cap = v->row->isa;
    f32 = v->model = model_of(&env, &c->shape);
    if (v->limit == LIMIT_BF16) {
        dp__source source = dp__source_net(&f32->net);
        source.bf16 = 1;
        check(dp__model_derive(f32, &f32->config, &source, &v->model, &err), &err);
    } else if (v->limit == LIMIT_INT8) {
        check(dp_quantize(f32, NULL, NULL, &v->model, NULL, &err), &err);
    }
    if (v->model != f32) dp_model_close(f32);
    DP_CLEAR(info);
    dp_model_get_info(v->model, &info);
    v->bytes = (double)info.weight_bytes -
               4.0 * info.hidden * (info.vocab + info.positions + info.types);
}

static void variant_close(variant *v) {
    if (v->session != NULL) dp_session_close(v->session);
    if (v->lesson.trainer != NULL) dp_trainer_close(v->lesson.trainer);
    if (v->model != NULL) dp_model_close(v->model);
    v->session = NULL;
    v->lesson.trainer = NULL;
    v->model = NULL;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* Lengths in tokens. "kit": 20 quantiles of the kit's texts, whose tokens number 34 to 143, median
 * 64, mean 71, 95 % below 117. "mixed": uniform from 8 to 512, always the same ones. */
static size_t task_length(const task *t, size_t i, int quick) {
    static const size_t kit[20] = {36, 41, 45, 48, 51, 53, 55,  58,  60,  63,
                                   66, 69, 72, 76, 80, 85, 92, 101, 113, 130};
    size_t n;
    if (strcmp(t->lengths, "kit") == 0) n = kit[i % 20];
    else if (strcmp(t->lengths, "mixed") == 0) n = 8 + (size_t)(dp__mix64(i + 1) % 505);
    else n = (size_t)atoi(t->lengths);
    return quick ? n / 32 + 3 : n;
}

static void task_texts(comparison *c) {
    static char text[MAX_TEXTS][512 * 8];
    int         quick = c->b->quick;
    c->tokens = 0;
    c->work = 0;
    for (size_t i = 0; i < c->task->texts; i++) {
        size_t n = task_length(c->task, i, quick);
        c->texts[i].a = text[i];
        c->texts[i].a_bytes = words_text(text[i], i, n);
        c->tokens += n;
        c->work += (c->task->train ? 3 : 1) * pass_work(&c->shape, (double)n);
    }
}

static void run_texts(const comparison *c, const variant *v) {
    static float  prob[MAX_TEXTS * CLASSES];
    dp_prediction info[MAX_TEXTS];
    size_t        tokens = 0;
    dp_error      err;
    check(dp_predict_batch(v->session, c->texts, c->task->texts, prob, NULL, info, &err), &err);
    for (size_t i = 0; i < c->task->texts; i++) tokens += info[i].tokens;
    if (tokens != c->tokens) die("a text has another number of tokens");
}

static double timed(const comparison *c, variant *v) {
    double start = now();
    if (c->task->train) run_lesson(&v->lesson);
    else run_texts(c, v);
    return now() - start;
}

static void look_at_peak(const comparison *c, variant *v) {
    double peak = window_of(&c->b->exec, v->chain, 0.01);
    if (peak > v->peak) v->peak = peak;
}

/* Ready for the task, or not: INT8 does not train, and a run must end in time. */
static int task_begin(comparison *c, variant *v) {
    dp_error err;
    v->runs = 0;
    v->spent = 0;
    for (int i = v->peak > 0 ? WINDOWS : 0; i < WINDOWS; i++) look_at_peak(c, v);
    if (c->task->train && v->limit == LIMIT_INT8) return 0;
    if (c->work / v->peak > c->b->seconds) {
        fprintf(stderr, "bench: %s: %s is left out, a run would take over %.0f s (--seconds)\n",
                c->task->name, v->name, c->work / v->peak);
        return 0;
    }
    if (v->model == NULL) variant_open(c, v);
    if (c->task->train) {
        lesson_open(&v->lesson, v->model, task_length(c->task, 0, c->b->quick),
                    v->limit == LIMIT_BF16 ? DP_BF16 : DP_F32);
        dp_model_close(v->model);
        v->model = NULL;
    } else if (v->session == NULL) {
        check(dp_session_open(v->model, NULL, &v->session, &err), &err);
    }
    return 1;
}

/* Warm-up rounds take at most a quarter of the time of the timed ones. */
static void warm_up(const comparison *c, variant *v, int rounds) {
    double spent = timed(c, v);
    for (int r = 1; r < rounds && spent < c->b->seconds / 4; r++) spent += timed(c, v);
}

static void take_turns(comparison *c, const int *ready) {
    for (int r = 0; r < c->b->rounds; r++) {
        for (int i = 0; i < c->count; i++) {
            variant *v = &c->variants[i];
            double   once = v->runs > 0 ? v->spent / v->runs : 0;
            if (!ready[i] || v->spent + once > c->b->seconds) continue;
            double seconds = timed(c, v), limit = window_of(&c->b->exec, v->chain, 0.001);
            v->clock[v->runs] = clock_rate();
            v->near[v->runs] = c->work / seconds / limit;
            v->seconds[v->runs++] = seconds;
            v->spent += seconds;
            if (r % (c->b->rounds / WINDOWS + 1) == 0) look_at_peak(c, v);
        }
    }
}

/* Median, mean and speed; the base of speed is FP32 on the best row that ran. */
static void summarise(comparison *c) {
    double one = 0;
    for (int i = 0; i < c->count; i++) {
        variant *v = &c->variants[i];
        size_t   n = (size_t)v->runs;
        if (n == 0) continue;
        qsort(v->seconds, n, sizeof(double), by_value);
        qsort(v->near, n, sizeof(double), by_value);
        qsort(v->clock, n, sizeof(double), by_value);
        v->median = v->seconds[n / 2];
        v->mean = v->spent / v->runs;
        if (v->limit == LIMIT_F32) one = v->median;
    }
    for (int i = 0; i < c->count; i++)
        if (c->variants[i].runs > 0) c->variants[i].speed = one / c->variants[i].median;
}

/* ---- tables --------------------------------------------------------------------------------- */

enum { FIELDS = 21 };

typedef struct field {
    const char *key, *text; /* NULL: the number, which is left empty if it is below 0 */
    double      number;
} field;

static void fields_of(const comparison *c, const variant *v, field *f) {
    const task *t = c->task;
    int         bound = t->warm_up == WARM_UP; /* by memory: one short text */
    double      work = c->work / v->seconds[0];
    field all[FIELDS] = {
        {"case", t->name, 0},
        {"dtype", v->dtype, 0},
        {"row", v->row->name, 0},
        {"cpu", c->cpu, 0},
        {"threads", NULL, c->b->exec.threads},
        {"texts", NULL, (double)t->texts},
        {"tokens", NULL, (double)c->tokens},
        {"runs", NULL, v->runs},
        {"median_s", NULL, v->median},
        {"mean_s", NULL, v->mean},
        {"min_s", NULL, v->seconds[0]},
        {"speed", NULL, v->speed > 0 ? v->speed : -1},
        {"texts_per_s", NULL, (double)t->texts / v->median},
        {"tokens_per_s", NULL, (double)c->tokens / v->median},
        {"clock_hz", NULL, v->clock[v->runs / 2] > 0 ? v->clock[v->runs / 2] : -1},
        {"peak_of", v->chain.name, 0},
        {"peak_per_s", NULL, v->peak},
        {"share", NULL, work / v->peak},
        {"share_at_clock", NULL, v->near[v->runs / 2]},
        {"weight_bytes", NULL, v->bytes},
        {"weight_bytes_per_s", NULL, bound ? v->bytes / v->median : -1},
    };
    for (int i = 0; i < FIELDS; i++) f[i] = all[i];
}

static void record(FILE *to, const field *f, int json) {
    for (int i = 0; i < FIELDS; i++) {
        if (i > 0) fputc(',', to);
        if (json) fprintf(to, "%s\"%s\":", i == 0 ? "{" : "", f[i].key);
        if (f[i].text != NULL) fprintf(to, "\"%s\"", f[i].text);
        else if (f[i].number >= 0) fprintf(to, "%.6g", f[i].number);
        else if (json) fputs("null", to);
    }
    fputs(json ? "}\n" : "\n", to);
}

static void print_variant(const comparison *c, const variant *v, double fastest) {
    int         bound = c->task->warm_up == WARM_UP;
    int         stars = fastest > 0 ? (int)(24 * v->speed / fastest + 0.5) : 0;
    const field unit = {NULL, c->task->train ? "texts" : "tokens",
                        (double)(c->task->train ? c->task->texts : c->tokens) / v->median};
    printf("%-17s%10.3f%10.3f%10.3f%5d%6.2f%8.1f%9.1f  %-13s%10.1f %s/s", v->name,
           v->median * 1e3, v->mean * 1e3, v->seconds[0] * 1e3, v->runs,
           v->clock[v->runs / 2] * 1e-9, 100 * c->work / v->seconds[0] / v->peak,
           100 * v->near[v->runs / 2], v->chain.name, unit.number, unit.text);
    if (bound) printf("  %6.1f MB %6.1f GB/s", v->bytes * 1e-6, v->bytes / v->median * 1e-9);
    printf("  %6.2f |%.*s\n", v->speed, stars, "########################");
}

static void print_task(const comparison *c) {
    const task *t = c->task;
    double      fastest = 0;
    if (c->b->json) return;
    for (int i = 0; i < c->count; i++)
        if (c->variants[i].runs > 0 && c->variants[i].speed > fastest)
            fastest = c->variants[i].speed;
    printf("\n%s: %s%s; warm-up %d, at most %d runs, interleaved; %s, threads %d\n", t->name,
           t->title, c->b->quick ? " (--quick: shorter, a small model)" : "", t->warm_up,
           c->b->rounds, c->cpu, (int)c->b->exec.threads);
    if (t->padded != 0)
        printf("padded to %u the kit computes %u tokens; here only the %u real ones are "
               "computed\n",
               (unsigned)t->padded, (unsigned)(t->padded * t->texts), (unsigned)c->tokens);
    printf("%-17s%10s%10s%10s%5s%6s%8s%9s  %-13s\n", "", "median ms", "mean ms", "min ms", "runs",
           "GHz", "share %", "at clock", "of the peak");
    for (int i = 0; i < c->count; i++)
        if (c->variants[i].runs > 0) print_variant(c, &c->variants[i], fastest);
}

static void report_task(comparison *c) {
    field f[FIELDS];
    print_task(c);
    for (int i = 0; i < c->count; i++) {
        variant *v = &c->variants[i];
        if (v->runs == 0) continue;
        fields_of(c, v, f);
        if (c->b->json) record(stdout, f, 1);
        for (int k = 0; k < FIELDS && c->csv != NULL && c->csv_lines == 0; k++)
            fprintf(c->csv, "%s%s", f[k].key, k + 1 < FIELDS ? "," : "\n");
        if (c->csv != NULL) record(c->csv, f, 0);
        c->csv_lines++;
        if (c->bar_count == MAX_BARS || !(v->speed > 0)) continue;
        bar *x = &c->bars[c->bar_count++];
        x->task = c->task->title;
        memcpy(x->name, v->name, sizeof x->name);
        x->limit = v->limit;
        x->speed = v->speed;
    }
    fflush(stdout);
}

/* ---- chart ---------------------------------------------------------------------------------- */

enum { LEFT = 170, WIDE = 560, STEP = 18, GAP = 34, TOP = 66 }; /* pixels */

static void svg_text(FILE *f, int x, int y, const char *more, const char *text) {
    fprintf(f, "<text x=\"%d\" y=\"%d\"%s>", x, y, more);
    for (; *text != 0; text++) {
        if (*text == '&') fputs("&amp;", f);
        else if (*text == '<') fputs("&lt;", f);
        else fputc(*text, f);
    }
    fputs("</text>\n", f);
}

/* Lines of the axis at 0, step, 2 step, ...; steps are 1, 2, 5, 10, ... and lines at most 11. */
static void svg_axis(FILE *f, double most, int bottom) {
    static const double steps[] = {0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};
    char                label[32];
    size_t              s = 0;
    while (s + 1 < sizeof steps / sizeof *steps && most / steps[s] > 10) s++;
    for (double x = 0; x <= most; x += steps[s]) {
        int at = LEFT + (int)((double)WIDE * x / most);
        fprintf(f, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#ccc\"/>\n", at, TOP, at,
                bottom);
        snprintf(label, sizeof label, "%g", x);
        svg_text(f, at, bottom + 16, " text-anchor=\"middle\"", label);
    }
    svg_text(f, LEFT + WIDE / 2, bottom + 36, " text-anchor=\"middle\"",
             "times as fast as FP32 on the best row (medians)");
}

static void svg_bar(FILE *f, const bar *x, int y, double most) {
    static const char *const colours[] = {"#888", "#4878a8", "#c06030", "#509050"};
    char                     label[32];
    int                      wide = (int)((double)WIDE * x->speed / most);
    svg_text(f, LEFT - 8, y + 13, " text-anchor=\"end\"", x->name);
    fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", LEFT, y + 2,
            wide > 0 ? wide : 1, STEP - 4, colours[x->limit]);
    snprintf(label, sizeof label, "%.2f", x->speed);
    svg_text(f, LEFT + wide + 6, y + 13, "", label);
}

static void write_svg(const comparison *c, FILE *f) {
    char   line[200];
    double most = 1;
    int    tall = TOP + 60, y = TOP;
    for (int i = 0; i < c->bar_count; i++) {
        if (c->bars[i].speed > most) most = c->bars[i].speed;
        tall += STEP + (i == 0 || c->bars[i].task != c->bars[i - 1].task ? GAP : 0);
    }
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            LEFT + WIDE + 70, tall);
    svg_text(f, 16, 26, " font-size=\"16\"", c->b->quick ? "A small model on each kernel row"
                                                         : "BERT-base on each kernel row");
    snprintf(line, sizeof line, "%s, threads %d, best row %s", c->cpu, (int)c->b->exec.threads,
             c->b->exec.row->name);
    svg_text(f, 16, 46, "", line);
    svg_axis(f, most, tall - 50);
    for (int i = 0; i < c->bar_count; i++, y += STEP) {
        if (i == 0 || c->bars[i].task != c->bars[i - 1].task) {
            svg_text(f, 16, y + 24, " font-weight=\"bold\"", c->bars[i].task);
            y += GAP;
        }
        svg_bar(f, &c->bars[i], y, most);
    }
    fputs("</svg>\n", f);
}

/* ---- the comparison ------------------------------------------------------------------------- */

static void run_task(comparison *c, const task *t) {
    static const geometry small = {2, 64, 2, 128, SMALL_VOCAB};
    geometry              shape = c->b->quick ? small : t->layers == 6 ? minilm : base;
    int                   ready[MAX_VARIANTS];
    if (t->train || memcmp(&shape, &c->shape, sizeof shape) != 0)
        for (int i = 0; i < c->count; i++) variant_close(&c->variants[i]);
    c->task = t;
    c->shape = shape;
    task_texts(c);
    for (int i = 0; i < c->count; i++) {
        ready[i] = task_begin(c, &c->variants[i]);
        if (ready[i]) warm_up(c, &c->variants[i], c->b->quick ? 1 : t->warm_up);
    }
    take_turns(c, ready);
    summarise(c);
    report_task(c);
}

static FILE *file_open(const char *name) {
    FILE *f = name != NULL ? fopen(name, "w") : NULL;
    if (name != NULL && f == NULL) die("cannot write the file of --csv or --svg");
    return f;
}

static void file_close(FILE *f) {
    if (f != NULL && (ferror(f) | fclose(f))) die("cannot write the file of --csv or --svg");
}

static void bench_isa(bench *b) {
    static comparison c;
    c.b = b;
    c.csv = file_open(b->csv);
    FILE *svg = file_open(b->svg);
    cpu_name(c.cpu, sizeof c.cpu);
    find_variants(&c);
    for (int i = 0; i < TASKS; i++) {
        if (strstr(tasks[i].name, b->only) == NULL) continue;
        b->ran = 1;
        run_task(&c, &tasks[i]);
    }
    for (int i = 0; i < c.count; i++) variant_close(&c.variants[i]);
    if (svg != NULL) write_svg(&c, svg);
    file_close(c.csv);
    file_close(svg);
}
