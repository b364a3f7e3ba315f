/* test_learn.c -- tests of part G: optimizer, schedules, metrics, training loop, checkpoints. */

/* ---- vectors: text up to the line "data", then float64 (tools/gen_vectors.py) -------------- */

#define LEARN_TENSORS 160

typedef struct learn_tensor {
    char          name[80];
    size_t        n;
    double        rms, square, max; /* of the values; of PyTorch's float32 errors */
    const double *want;             /* [n] */
} learn_tensor;

typedef struct learn_file {
    char         *text;
    double       *data;
    size_t        count;
    learn_tensor  tensor[LEARN_TENSORS];
} learn_file;

static int learn_open(learn_file *f, const char *path) {
    FILE  *in = fopen(path, "rb");
    size_t bytes, at = 0;
    memset(f, 0, sizeof *f);
    if (in == NULL) return 0;
    fseek(in, 0, SEEK_END);
    bytes = (size_t)ftell(in);
    rewind(in);
    f->text = (char *)calloc(bytes + 1, 1);
    size_t got = fread(f->text, 1, bytes, in);
    fclose(in);
    char *data = strstr(f->text, "\ndata\n");
    if (got != bytes || data == NULL) return 0;
    data += 6;
    f->data = (double *)malloc((size_t)(f->text + bytes - data));
    memcpy(f->data, data, (size_t)(f->text + bytes - data));
    dp__swap_le(f->data, (size_t)(f->text + bytes - data) / 8, 8);
    for (char *line = f->text; line < data; line = strchr(line, '\n') + 1) {
        learn_tensor *t = &f->tensor[f->count];
        unsigned long n;
        if (strncmp(line, "tensor ", 7) != 0) continue;
        if (sscanf(line, "tensor %79s %lu %lf %lf %lf", t->name, &n, &t->rms, &t->square,
                   &t->max) != 5 || ++f->count == LEARN_TENSORS) return 0;
        t->n = n;
        t->want = f->data + at;
        at += t->n;
    }
    return (char *)(f->data + at) == (char *)f->data + (f->text + bytes - data);
}

static void learn_close(learn_file *f) {
    free(f->text);
    free(f->data);
}

static const learn_tensor *learn_find(const learn_file *f, const char *run, const char *name) {
    char whole[128];
    snprintf(whole, sizeof whole, "%s.%s", run, name);
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->tensor[i].name, whole) == 0) return &f->tensor[i];
    return NULL;
}

/* Numbers of a stream, as tools/gen_vectors.py makes them: float32 in [-1, 1). */
static uint32_t learn_hash(uint32_t stream, uint32_t i) {
    uint32_t x = i * 0x9E3779B1u + stream * 0x85EBCA77u;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    return x ^ x >> 16;
}

static float learn_uniform(uint32_t stream, uint32_t i) {
    return (float)((int32_t)(learn_hash(stream, i) >> 8) - 8388608) / 8388608.0f;
}

/* ---- the rule ------------------------------------------------------------------------------ */

static const struct {
    const char  *name;
    dp_optimizer kind;
    double       lr, decay, warmup, norm;
} learn_runs[3] = {
    {"adam", DP_ADAM, 1e-3, 0.0, 5, 0.5},
    {"adam_l2", DP_ADAM, 1e-3, 0.02, 0, -1},
    {"adamw", DP_ADAMW, 2e-3, 0.05, 0, 0.5},
};

static dp_train_options learn_options(int run) {
    dp_train_options o;
    dp_clear(&o, sizeof o);
    o.lr = learn_runs[run].lr;
    o.optimizer = learn_runs[run].kind;
    o.weight_decay = learn_runs[run].decay;
    o.warmup = learn_runs[run].warmup;
    o.grad_norm = learn_runs[run].norm;
    o.beta1 = 0.9;
    o.beta2 = 0.999;
    o.eps = 1e-8;
    return o;
}

static void learn_exec(dp__exec *x, int32_t threads, dp_isa isa) {
    dp_env env, in;
    dp_clear(&in, sizeof in);
    in.threads = threads;
    in.isa_cap = isa;
    CHECK(dp__env_init(&in, &env, NULL) == DP_OK);
    CHECK(dp__exec_open(x, &env, NULL) == DP_OK);
}

/* Arrays of an optimizer over n parameters, all 0. */
static dp__optim learn_optim(size_t n) {
    dp__optim a;
    a.n = n;
    a.w = (dp_real *)calloc(4 * n, sizeof(dp_real));
    a.g = a.w + n;
    a.m = a.g + n;
    a.v = a.m + n;
    a.sums = (double *)calloc(n / 4096 + 1, sizeof(double));
    return a;
}

static void learn_optim_free(dp__optim *a) {
    free(a->w);
    free(a->sums);
}

/* Every element within twice the largest error that PyTorch's float32 made, or 2 units in the
 * last place of the largest element (one rounding of the result and one of the last step). */
static void learn_near(const learn_tensor *t, const dp_real *got, double more) {
    double top = 0, worst = 0;
    for (size_t i = 0; i < t->n; i++) {
        double miss = fabs((double)got[i] - t->want[i]);
        if (fabs(t->want[i]) > top) top = fabs(t->want[i]);
        if (!(miss <= worst)) worst = miss;
    }
    double gate = 2 * t->max > top * 2.4e-7 ? 2 * t->max : top * 2.4e-7;
    if (worst <= gate + more) return;
    CHECK(!"near PyTorch");
    printf("    %s: %.3g against PyTorch's %.3g\n", t->name, worst, t->max);
}

static void test_adam_rule(void) {
    learn_file f;
    dp__exec   x;
    learn_exec(&x, 1, DP_ISA_AUTO);
    CHECK(learn_open(&f, "tests/vectors/learn_rule.vec"));
    for (int run = 0; run < 3 && f.count > 0; run++) {
        dp_train_options o = learn_options(run);
        dp__optim a = learn_optim(64);
        double    norm;
        o.grad_norm = -1;
        for (uint32_t i = 0; i < 64; i++) a.w[i] = (dp_real)learn_uniform(39999, i);
        for (uint32_t s = 0; s < 50; s++) {
            double scale[7] = {1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};
            for (uint32_t i = 0; i < 64; i++)
                a.g[i] = (dp_real)(float)((double)learn_uniform(40000 + s, i) * scale[i % 7]);
            CHECK(dp__optim_step(&x, &a, &o, o.lr, s + 1, &norm) == DP__STEP_DONE);
        }
        learn_near(learn_find(&f, learn_runs[run].name, "weight"), a.w, 0);
        learn_near(learn_find(&f, learn_runs[run].name, "m"), a.m, 0);
        learn_near(learn_find(&f, learn_runs[run].name, "v"), a.v, 0);
        learn_optim_free(&a);
    }
    learn_close(&f);
    dp__exec_close(&x);
}

/* Same bits from every row and every number of threads, over several blocks and a tail. */
static void test_adam_rows(void) {
    size_t     n = 4096 * 5 + 1237;
    dp_real   *want = NULL;
    for (int row = DP_ISA_SCALAR; row <= DP_ISA_AVX512; row++) {
        if (dp__row_missing((dp_isa)row, dp__cpu_bits(), dp__os_bits()) != NULL) continue;
        for (int32_t threads = 1; threads <= 5; threads++) {
            dp_train_options o = learn_options(2);
            dp__optim a = learn_optim(n);
            dp__exec  x;
            double    norm;
            learn_exec(&x, threads, (dp_isa)row);
            for (size_t i = 0; i < n; i++) a.w[i] = (dp_real)learn_uniform(7, (uint32_t)i);
            for (uint32_t s = 0; s < 3; s++) {
                for (size_t i = 0; i < n; i++) a.g[i] = (dp_real)learn_uniform(8 + s, (uint32_t)i);
                CHECK(dp__optim_step(&x, &a, &o, 1e-3, s + 1, &norm) == DP__STEP_DONE);
            }
            memset(a.g, 0, n * sizeof(dp_real));
            if (want != NULL) CHECK(memcmp(want, a.w, 4 * n * sizeof(dp_real)) == 0);
            dp__exec_close(&x);
            free(a.sums);
            if (want == NULL) want = a.w;
            else free(a.w);
        }
    }
    free(want);
}

/* After clipping the norm is at most the limit and the direction is the same: seen in the first
 * moment, which after one step from 0 is (1 - beta1) times the clipped gradient. */
static void test_clip_direction(void) {
    dp__exec x;
    learn_exec(&x, 1, DP_ISA_AUTO);
    for (int power = -3; power <= 18; power++) {
        dp_train_options o = learn_options(0);
        dp__optim a = learn_optim(1000);
        double    size = 1, norm, square = 0, scale = -1;
        for (int i = 0; i < power; i++) size *= 10;
        for (int i = 0; i > power; i--) size /= 10;
        for (uint32_t i = 0; i < 1000; i++) a.g[i] = (dp_real)(size * (double)learn_uniform(3, i));
        o.grad_norm = 2.5;
        CHECK(dp__optim_step(&x, &a, &o, 1e-3, 1, &norm) == DP__STEP_DONE);
        for (uint32_t i = 0; i < 1000; i++) {
            double m = (double)a.m[i] / (double)(dp_real)(1 - 0.9), ratio = m / (double)a.g[i];
            square += m * m;
            if (scale < 0) scale = ratio;
            CHECK(fabs(ratio - scale) <= 4e-7 * scale); /* factor, product, difference: 3 u each */
        }
        CHECK(sqrt(square) <= 2.5 * (1 + 4e-7));
        if (norm > 2.6) CHECK(sqrt(square) >= 2.5 * (1 - 1e-5));
        if (norm < 2.4) CHECK(fabs(scale - 1) < 4e-7);
        learn_optim_free(&a);
    }
    CHECK(dp__clip(100, -1) == 1 && dp__clip(0, 10) == 1);
    dp__exec_close(&x);
}

static void test_rate_transformers(void) {
    static const char *const name[4] = {"constant0", "constant6", "linear0", "linear6"};
    learn_file f;
    CHECK(learn_open(&f, "tests/vectors/learn_lr.vec"));
    CHECK_INT(f.count, 4);
    for (size_t i = 0; i < f.count; i++) {
        dp_train_options o = learn_options(0);
        CHECK(strcmp(f.tensor[i].name, name[i]) == 0);
        o.lr = 2e-3;
        o.schedule = i < 2 ? DP_CONSTANT : DP_LINEAR;
        o.warmup = i % 2 ? 6 : 0;
        for (uint64_t s = 0; s < 40; s++) {
            double rate = dp__rate(&o, s, 40), want = f.tensor[i].want[s];
            CHECK(fabs(rate - want) <= 1e-15 * want);
        }
        o.warmup = i % 2 ? 0.15 : 0; /* the same as a fraction: 6 of 40 */
        for (uint64_t s = 0; s < 40; s++)
            CHECK(fabs(dp__rate(&o, s, 40) - f.tensor[i].want[s]) <= 1e-15 * f.tensor[i].want[s]);
    }
    learn_close(&f);
}

static void test_rate_edges(void) {
    dp_train_options o = learn_options(0);
    o.lr = 1;
    o.schedule = DP_LINEAR;
    o.warmup = 0.5;
    CHECK(dp__rate(&o, 0, 1) == 0);     /* the one step is warm-up, as in transformers */
    CHECK(dp__rate(&o, 5, 0) == 1);     /* length unknown: neither fraction nor decay */
    CHECK(dp__rate(&o, 99, 10) == 0);   /* beyond the end */
    o.warmup = 20;
    CHECK(dp__rate(&o, 10, 10) == 0.5); /* warm-up longer than the run */
    o.warmup = 0;
    CHECK(dp__rate(&o, 0, 3) == 1 && dp__rate(&o, 3, 3) == 0);
}

/* NaN, infinities in gradient and moments: nothing is written; in a weight: it is reported. */
static void test_step_not_finite(void) {
    const double bad[4] = {0.0 / 0.0, HUGE_VAL, -HUGE_VAL, 1e38};
    dp__exec x;
    learn_exec(&x, 2, DP_ISA_AUTO);
    for (int where = 0; where < 4; where++) {
        for (int k = 0; k < 4; k++) {
            size_t    n = 9000, at = (size_t)k * 2999;
            dp_train_options o = learn_options(2);
            dp__optim a = learn_optim(n);
            double    norm;
            for (size_t i = 0; i < n; i++) {
                a.w[i] = (dp_real)learn_uniform(1, (uint32_t)i);
                a.g[i] = (dp_real)learn_uniform(2, (uint32_t)i);
            }
            dp_real *array = where == 0 ? a.g : where == 1 ? a.m : where == 2 ? a.v : a.w;
            array[at] = (dp_real)bad[k];
            dp_real *copy = (dp_real *)malloc(4 * n * sizeof(dp_real));
            memcpy(copy, a.w, 4 * n * sizeof(dp_real));
            dp__step_result result = dp__optim_step(&x, &a, &o, 1e-3, 1, &norm);
            int finite = k == 3 && (where > 0 || sizeof(dp_real) == 8); /* 1e38^2 overflows */
            if (finite) {
                CHECK_INT(result, DP__STEP_DONE);
            } else if (where == 3) {
                CHECK_INT(result, DP__STEP_LOST);
            } else {
                CHECK_INT(result, DP__STEP_SKIPPED);
                CHECK(memcmp(copy, a.w, 4 * n * sizeof(dp_real)) == 0);
            }
            free(copy);
            learn_optim_free(&a);
        }
    }
    dp__exec_close(&x);
}

/* ---- metrics ------------------------------------------------------------------------------- */

#define LEARN_CLOSE(a, b) CHECK(fabs((a) - (b)) < 1e-6)

/* Five rows, three classes; figures by hand (and scikit-learn's f1_score, log_loss). */
static void test_metrics_single(void) {
    /* log-probabilities themselves are logits: softmax gives the probabilities back */
    static const double p[5][3] = {{0.7, 0.2, 0.1}, {0.1, 0.8, 0.1}, {0.3, 0.3, 0.4},
                                   {0.6, 0.3, 0.1}, {0.05, 0.05, 0.9}};
    static const int32_t  label[5] = {0, 1, 1, 0, 0};
    static const uint64_t want[9] = {2, 0, 1, 0, 1, 1, 0, 0, 0};
    dp__tally  tally[3];
    uint64_t   confusion[9];
    dp__meter  m;
    dp_metrics out;
    dp__meter_init(&m, DP_SINGLE_LABEL, 3, tally, confusion);
    for (int r = 0; r < 5; r++) {
        dp_real z[3];
        for (int i = 0; i < 3; i++) z[i] = (dp_real)(log(p[r][i]) + 5);
        CHECK(dp__meter_add(&m, z, label[r], NULL));
    }
    dp__meter_result(&m, &out);
    CHECK_INT(out.rows, 5);
    LEARN_CLOSE(out.accuracy, 0.6);
    /* class 0: label 3, guess 2, both 2: 0.8; class 1: 2, 1, 1: 2/3; class 2: 0, 2, 0: 0 */
    LEARN_CLOSE(out.macro_f1, (0.8 + 2.0 / 3 + 0) / 3);
    LEARN_CLOSE(out.nll, -(log(0.7) + log(0.8) + log(0.3) + log(0.6) + log(0.05)) / 5);
    /* bins of 1/15: 0.4 = 6/15 falls into (5/15, 6/15]; 0.6 and 0.7, 0.8, 0.9 stand alone */
    LEARN_CLOSE(out.ece, (0.3 + 0.2 + 0.4 + 0.4 + 0.9) / 5);
    CHECK(memcmp(confusion, want, sizeof want) == 0);
}

/* Classes that occur neither as label nor as prediction do not count into macro-F1. */
static void test_metrics_empty_class(void) {
    dp__tally  tally[4];
    dp__meter  m;
    dp_metrics out;
    dp_real    z[4] = {0, 3, 0, 0};
    dp__meter_init(&m, DP_SINGLE_LABEL, 4, tally, NULL);
    dp__meter_result(&m, &out);
    CHECK(out.rows == 0 && out.accuracy == 0 && out.nll == 0 && out.ece == 0 && out.macro_f1 == 0);
    CHECK(dp__meter_add(&m, z, 1, NULL));
    dp__meter_result(&m, &out);
    LEARN_CLOSE(out.macro_f1, 1);
    LEARN_CLOSE(out.accuracy, 1);
}

/* A row that is not finite is refused and not counted; ties go to the first class; far logits
 * neither overflow nor lose the loss. */
static void test_metrics_not_finite(void) {
    dp__tally  tally[3];
    dp__meter  m;
    dp_metrics out;
    const double bad[3] = {0.0 / 0.0, HUGE_VAL, -HUGE_VAL};
    for (int problem = 0; problem < 3; problem++) {
        float target[3] = {1, 0, 1};
        dp__meter_init(&m, (dp_problem)problem, 3, tally, NULL);
        for (int k = 0; k < 9; k++) {
            dp_real z[3] = {1, 2, 3};
            z[k % 3] = (dp_real)bad[k / 3];
            CHECK(!dp__meter_add(&m, z, 0, target));
        }
        CHECK_INT(m.rows, 0);
        dp_real far[3] = {-1e4f, 1e4f, 1e4f};
        CHECK(dp__meter_add(&m, far, 0, target));
        dp__meter_result(&m, &out);
        CHECK(out.nll - out.nll == 0 && out.nll > 1000);
    }
    dp_real tie[3] = {2, 2, 2};
    CHECK_INT(dp__best(tie, 3), 0);
}

static void test_metrics_multi(void) {
    static const double p[3][2] = {{0.9, 0.2}, {0.4, 0.6}, {0.5, 0.7}};
    static const float  y[3][2] = {{1, 0}, {1, 1}, {0, 1}};
    dp__tally  tally[2];
    dp__meter  m;
    dp_metrics out;
    double     loss = 0;
    dp__meter_init(&m, DP_MULTI_LABEL, 2, tally, NULL);
    for (int r = 0; r < 3; r++) {
        dp_real z[2];
        for (int i = 0; i < 2; i++) {
            z[i] = (dp_real)log(p[r][i] / (1 - p[r][i]));
            loss -= y[r][i] > 0 ? log(p[r][i]) : log(1 - p[r][i]);
        }
        if (r == 2) z[0] = 0; /* p = 1/2 exactly is not given */
        CHECK(dp__meter_add(&m, z, -1, y[r]));
    }
    dp__meter_result(&m, &out);
    LEARN_CLOSE(out.accuracy, 2.0 / 3);
    LEARN_CLOSE(out.nll, loss / 6);
    /* class 0: label 2, guess 1, both 1: 2/3; class 1: label 2, guess 2, both 2: 1 */
    LEARN_CLOSE(out.macro_f1, (2.0 / 3 + 1) / 2);
    /* confidences 0.9 r, 0.8 r, 0.6 w and 0.6 r (one bin), 0.5 r, 0.7 r */
    LEARN_CLOSE(out.ece, (0.1 + 0.2 + 0.2 + 0.5 + 0.3) / 6);
}

static void test_metrics_regression(void) {
    static const float z[4][2] = {{2.5f, 7}, {0, 7}, {2, 8}, {8, 7}};
    static const float y[4][2] = {{3, 7}, {-0.5f, 7}, {2, 7}, {7, 7}};
    dp__tally  tally[2];
    dp__meter  m;
    dp_metrics out;
    for (int outputs = 1; outputs <= 2; outputs++) {
        dp__meter_init(&m, DP_REGRESSION, (size_t)outputs, tally, NULL);
        for (int r = 0; r < 4; r++) {
            dp_real row[2] = {(dp_real)z[r][0], (dp_real)z[r][1]};
            CHECK(dp__meter_add(&m, row, -1, y[r]));
        }
        dp__meter_result(&m, &out);
        /* scikit-learn's example of r2_score: 0.948608...; a constant target that is missed: 0 */
        LEARN_CLOSE(out.accuracy, outputs == 1 ? 0.9486081370449679 : 0.9486081370449679 / 2);
        LEARN_CLOSE(out.nll, outputs == 1 ? 0.375 : (0.375 + 0.25) / 2);
        CHECK(out.macro_f1 == 0 && out.ece == 0);
    }
}

/* Edges of the 15 bins: (0, 1/15] ... (14/15, 1], both ends reachable. */
static void test_metrics_bins(void) {
    dp__tally tally[2];
    dp__meter m;
    dp__meter_init(&m, DP_MULTI_LABEL, 2, tally, NULL);
    dp__meter_bin(&m, 0, 0);
    dp__meter_bin(&m, 1, 1);
    for (int b = 0; b < 15; b++) dp__meter_bin(&m, (b + 0.5) / 15, b % 2);
    for (int b = 0; b < 15; b++)
        CHECK_INT(m.bin_rows[b], b == 0 || b == 14 ? 2 : 1);
    CHECK_INT(m.bin_right[14], 1);
}

static const test tests_learn[] = {
    {"adam_rule", test_adam_rule},
    {"adam_rows", test_adam_rows},
    {"clip_direction", test_clip_direction},
    {"rate_transformers", test_rate_transformers},
    {"rate_edges", test_rate_edges},
    {"step_not_finite", test_step_not_finite},
    {"metrics_single", test_metrics_single},
    {"metrics_empty_class", test_metrics_empty_class},
    {"metrics_not_finite", test_metrics_not_finite},
    {"metrics_multi", test_metrics_multi},
    {"metrics_regression", test_metrics_regression},
    {"metrics_bins", test_metrics_bins},
};
