/* test_kernels.c -- tests of [E1], [E2], the element-wise work of [E4] to [E6] and its callers in
 * [F2]. Every kernel row against the scalar row bit for bit; every formula against double. */

/* ---- E1: number formats -------------------------------------------------------------------- */

/* binary16 is read from files (C3): every value by the definition of the format. */
static void test_format_f16(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        int    e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        double want = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
        double x = (double)dp__widen_f16((uint16_t)h);
        if (h & 0x8000) want = -want;
        if (e == 31) CHECK(m != 0 ? x != x : isinf(x));
        else CHECK(x == want && !signbit(x) == !(h & 0x8000));
    }
}

static float kernels_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* bfloat16 is the upper half of a float. */
static void test_format_bf16(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        char  bytes[2] = {(char)(h & 255), (char)(h >> 8)};
        float x = (float)dp__widen(DP__BF16, bytes);
        CHECK_INT(dp__f32_bits(x), h << 16);
    }
}

/* A float to bfloat16 by its value: the nearest of the bfloat16 around it; among two the even one.
 * Only what is not defined by values is stated here: denormals, infinity, NaN. */
static uint16_t kernels_bf16(float x) {
    uint32_t u = dp__f32_bits(x), sign = u & 0x80000000u, size = u & 0x7FFFFFFFu;
    uint32_t low = size & 0xFFFF0000u, high = low + 0x10000u;
    if (size > 0x7F800000u) return (uint16_t)((u | 0x00400000u) >> 16);
    if (size < 0x00800000u) return (uint16_t)(sign >> 16);
    if (size == 0x7F800000u) return (uint16_t)(u >> 16);
    double v = fabs((double)x), a = (double)kernels_float(low);
    double b = high == 0x7F800000u ? ldexp(1, 128) : (double)kernels_float(high);
    int    up = v - a > b - v || (v - a == b - v && (high >> 16) % 2 == 0);
    return (uint16_t)((sign | (up ? high : low)) >> 16);
}

#if defined(DP__AVX512) && !defined(DP__SOFTWARE)
DP__TARGET("avx512f,avx512bf16") static uint16_t bf16_hardware(float x) {
    float    lanes[16] = {x};
    uint16_t out[16];
    __m256i  v = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(lanes));
    memcpy(out, &v, sizeof out);
    return out[0];
}
#else
static uint16_t bf16_hardware(float x) {
    return kernels_bf16(x);
}
#endif

/* The scalar conversion and the lanes against the definition, and the processor's where it has
 * one: around every bfloat16, or (DP_TEST_LONG) on every float. */
static void test_format_bf16_round(void) {
    uint64_t wrong = 0, step = test_long() ? 1 : 0x4000;
    int      hardware = (dp__cpu_bits() & DP__CPU_AVX512BF16) != 0;
    for (uint64_t i = 0; i < (uint64_t)1 << 32; i += step) {
        for (int d = step == 1 ? 0 : -1; d <= (step == 1 ? 0 : 1); d++) {
            uint32_t u = (uint32_t)(i + (uint64_t)(int64_t)d), pairs[4];
            float    x[8];
            dp__vec  v;
            uint16_t want = kernels_bf16(kernels_float(u)), got = dp__bf16(kernels_float(u));
            wrong += got != want;
            if (hardware) wrong += bf16_hardware(kernels_float(u)) != want;
            if (step == 1 && i % 8 != 0) continue;
            memset(&v, 0, sizeof v);
            for (uint32_t j = 0; j < 8; j++) x[j] = kernels_float(u + j);
            v.op = DP__VEC_BF16, v.n = 8, v.x = x, v.q = (uint8_t *)pairs;
            dp__vec_scalar(&v, 0, 1);
            for (uint32_t j = 0; j < 8; j++)
                wrong += (uint16_t)(pairs[j / 2] >> j % 2 * 16) != kernels_bf16(x[j]);
        }
    }
    CHECK_INT(wrong, 0);
}

/* ---- E2: elementary functions -------------------------------------------------------------- */

typedef struct kernels_function {
    const char *name;
    void (*run)(float *x); /* [8], in place */
    double (*want)(double);
    double ulp;            /* bound asserted */
    float  flush;          /* results may be 0 where |want| is at most this */
    double (*unit)(double);/* what the error at x is divided by, or NULL */
    uint32_t at;           /* the worst of all floats, so that the short sweep has it, too */
} kernels_function;

/* One function of lanes on eight floats, whatever a vector holds. */
#define KERNELS_FUNCTION(name, call)                                                             \
    static void kernels_##name(float *x) {                                                       \
        for (size_t j = 0; j < 8; j += DP__W) {                                                  \
            dp__v8 v, other;                                                                     \
            memcpy(&v, x + j, sizeof v);                                                         \
            other = v;                                                                           \
            call;                                                                                \
            (void)other;                                                                         \
            memcpy(x + j, &v, sizeof v);                                                         \
        }                                                                                        \
    }
KERNELS_FUNCTION(exp, dp__exp_lanes(&v, 0, 0))
KERNELS_FUNCTION(exp_low, dp__exp_lanes(&v, 1, 0))
KERNELS_FUNCTION(log, dp__log_lanes(&v))
KERNELS_FUNCTION(tanh, dp__tanh_lanes(&v, 0))
KERNELS_FUNCTION(phi, dp__v8 x8 = v; dp__phi_parts(&x8, &v, &other, 0))
KERNELS_FUNCTION(gelu, dp__act_lanes(DP__GELU, &v, 0))
KERNELS_FUNCTION(gelu8, dp__act_lanes(DP__GELU8, &v, 0))

static double kernels_normal(double x) {
    return 0.5 * erfc(-x * sqrt(0.5));
}

/* Distance in units of the last place of a float at the exact value. */
static double kernels_ulp(float got, double want) {
    int e;
    if (want != want) return got != got ? 0 : 1e9;
    if (fabs(want) >= 0x1.ffffffp127) { /* rounds to infinity; the largest float is next to it */
        return fabsf(got) >= FLT_MAX && (got > 0) == (want > 0) ? 0 : 1e9;
    }
    if (got != got) return 1e9;
    frexp(want, &e);
    if (e < -125 || want == 0) e = -125;
    return fabs((double)got - want) / ldexp(1, e - 24);
}

typedef struct kernels_worst {
    double   ulp;
    uint32_t at;
} kernels_worst;

/* Eight floats, step apart. */
static void kernels_try(const kernels_function *f, uint32_t base, uint32_t step,
                        kernels_worst *worst) {
    float block[8], in[8];
    for (uint32_t j = 0; j < 8; j++) in[j] = block[j] = kernels_float(base + j * step);
    f->run(block);
    for (uint32_t j = 0; j < 8; j++) {
        double want = f->want((double)in[j]), ulp;
        if (fabs(want) <= (double)f->flush && block[j] == 0) continue;
        ulp = kernels_ulp(block[j], want);
        if (f->unit != NULL) ulp /= f->unit((double)in[j]);
        if (ulp > worst->ulp) worst->ulp = ulp, worst->at = dp__f32_bits(in[j]);
    }
}

/* All floats (long) or every 4,099th and the worst, in both halves: oddness is in the bound. */
static void kernels_sweep(const kernels_function *f) {
    uint32_t      step = test_long() ? 1 : 4099;
    kernels_worst worst = {0, 0};
    kernels_try(f, f->at, 1, &worst);
    for (uint64_t base = 0; base < 0x100000000u; base += (uint64_t)8 * step)
        kernels_try(f, (uint32_t)base, step, &worst);
    printf("     %s: at most %.4f ulp, at %08x\n", f->name, worst.ulp, worst.at);
    CHECK(worst.ulp <= f->ulp);
}

static void test_exp_all(void) {
    static const kernels_function f = {"exp", kernels_exp, exp, 1.014, 1.9e-38f, NULL,
                                       0x41bfaccd};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 88.72283f, 88.72284f, -1e30f};
    kernels_sweep(&f);
    kernels_exp(special);
    CHECK(special[0] == 1 && special[1] == 1 && special[2] == INFINITY);
    CHECK(dp__f32_bits(special[3]) == 0 && special[4] != special[4]);
    CHECK(special[5] <= FLT_MAX && special[6] == INFINITY && dp__f32_bits(special[7]) == 0);
    for (uint32_t u = 0; u < 0xC2B00000u; u += 4099) { /* the short form: same bits below 88 */
        float a[8], b[8];
        for (uint32_t j = 0; j < 8; j++) a[j] = b[j] = kernels_float(0x80000000u + u + j * 7);
        a[7] = b[7] = (float)(u % 88);
        kernels_exp(a);
        kernels_exp_low(b);
        for (int j = 0; j < 8; j++) CHECK(a[j] == b[j] || (a[j] != a[j] && b[j] != b[j]));
    }
}

static void test_log_all(void) {
    static const kernels_function f = {"log", kernels_log, log, 0.905, 0, NULL, 0x3f34e873};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, FLT_MIN / 8388608};
    kernels_sweep(&f);
    kernels_log(special);
    CHECK(special[0] == -INFINITY && special[1] == -INFINITY && special[2] == INFINITY);
    CHECK(special[3] != special[3] && special[4] != special[4] && special[5] == 0);
    CHECK(special[6] != special[6] && fabsf(special[7] + 103.27893f) < 1e-5f);
}

static void test_tanh_all(void) {
    static const kernels_function f = {"tanh", kernels_tanh, tanh, 1.513, 0, NULL, 0x3fa532eb};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 20, -20, 1e-40f};
    kernels_sweep(&f);
    kernels_tanh(special);
    CHECK(dp__f32_bits(special[0]) == 0 && dp__f32_bits(special[1]) == 0x80000000u);
    CHECK(special[2] == 1 && special[3] == -1 && special[4] != special[4]);
    CHECK(special[5] == 1 && special[6] == -1 && special[7] == 1e-40f);
}

/* The square under the exponent is rounded, so the allowed error grows with x^2. */
static double kernels_phi_ulp(double x) {
    return x < 0 ? 5 + fmin(4 * x * x, 26) + x * x / 2 : 3;
}

static void test_phi_all(void) {
    static const kernels_function f = {"phi", kernels_phi, kernels_normal, 1, 2e-38f,
                                       kernels_phi_ulp, 0xc135da6d};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e30f, -1e30f, -14};
    kernels_sweep(&f);
    kernels_phi(special);
    CHECK(special[0] == 0.5f && special[1] == 0.5f && special[2] == 1 && special[3] == 0);
    CHECK(special[4] != special[4] && special[5] == 1 && special[6] == 0 && special[7] == 0);
}

/* Beside the bound, what rounding an x above 8 costs. */
static void test_gelu8_all(void) {
    float    special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 4.42f};
    uint32_t step = test_long() ? 1 : 4099, at = 0;
    double   worst = 0;
    for (uint64_t u = 0; u < 0x100000000u; u += (uint64_t)8 * step) {
        float x[8], y[8];
        for (uint32_t j = 0; j < 8; j++)
            x[j] = y[j] = kernels_float(u == 0 ? 0x408D7098u + j : (uint32_t)u + j * step);
        kernels_gelu8(y);
        for (uint32_t j = 0; j < 8; j++) {
            double exact = (double)x[j] * kernels_normal((double)x[j]);
            double off = fabs((double)y[j] - exact) - (x[j] > 8 ? (double)x[j] * 0x1p-24 : 0);
            if (!(fabsf(x[j]) <= FLT_MAX)) continue;
            if (off != off || off > worst) at = dp__f32_bits(x[j]);
            worst = test_larger(worst, off);
        }
    }
    printf("     gelu8: off by at most %.4g, at %08x\n", worst, at);
    CHECK(worst <= 1.14e-5 && worst > 1.1e-5);
    kernels_gelu8(special);
    CHECK(dp__f32_bits(special[0]) == 0 && dp__f32_bits(special[1]) == 0x80000000u);
    CHECK(special[2] == INFINITY && special[3] < 0 && special[3] > -1.1e-5f);
    CHECK(special[4] != special[4] && special[5] == 1e30f && special[6] == special[3]);
    CHECK(special[7] == 4.42f + special[3]);
}

/* ---- element-wise work: every row against the scalar row ------------------------------------ */

#define KERNELS_BYTES 262144u /* of a region */

/* Memory between closed pages: blocks of a case lie flush against its end or its beginning. */
typedef struct kernels_region {
    guarded g;
    size_t  bytes; /* used by the case */
    char    type;  /* 'f' floats, 'd' doubles, 'b' bytes */
} kernels_region;

enum { KERNELS_Y, KERNELS_X, KERNELS_Z, KERNELS_W, KERNELS_B, KERNELS_S, KERNELS_T, KERNELS_SUMS,
       KERNELS_Q, KERNELS_IDS, KERNELS_AT, KERNELS_TYPES, KERNELS_DOC,
       KERNELS_REGIONS };

typedef struct kernels_case {
    dp__vec v;
    size_t  count;   /* rows, blocks or column groups */
    int32_t flag;
    int     front;   /* 1: flush against the page before */
    int     special; /* 1: NaN, infinities, -0, denormals, huge numbers among the inputs */
} kernels_case;

static kernels_region kernels_regions[KERNELS_REGIONS];

static void *kernels_place(const kernels_case *c, int region, char type, size_t bytes) {
    kernels_region *r = &kernels_regions[region];
    if (r->g.map == NULL) r->g = guarded_new(KERNELS_BYTES);
    if (bytes > KERNELS_BYTES) abort();
    r->bytes = bytes;
    r->type = type;
    return c->front ? r->g.p : r->g.p + KERNELS_BYTES - bytes;
}

static float kernels_number(const kernels_case *c, uint64_t *s) {
    static const uint32_t odd[] = {0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001,
                                   0x807FFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x00800000, 0x5F000000};
    if (c->special && test_rnd(s) % 4 == 0) return kernels_float(odd[test_rnd(s) % 10]);
    return test_rndf(s) * (test_rnd(s) % 4 ? 3.0f : 30.0f);
}

static float *kernels_floats(const kernels_case *c, int region, size_t n, uint64_t *s) {
    float *p = (float *)kernels_place(c, region, 'f', n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = kernels_number(c, s);
    return p;
}

static int32_t *kernels_ints(const kernels_case *c, int region, size_t n, int32_t below,
                             uint64_t *s) {
    int32_t *p = (int32_t *)kernels_place(c, region, 'b', n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = (int32_t)(test_rnd(s) % (uint64_t)below);
    return p;
}

static size_t kernels_extent(size_t rows, size_t ld, size_t n) {
    return rows ? (rows - 1) * ld + n : 0;
}

/* Operations on a flat array of n elements. */
static void kernels_fill_flat(kernels_case *c, size_t n, uint64_t *s) {
    dp__vec *v = &c->v;
    size_t   blocks = (n + DP__FLAT - 1) / DP__FLAT;
    v->n = v->ldx = v->ldy = DP__FLAT;
    v->total = n;
    v->x = kernels_floats(c, KERNELS_X, n, s);
    v->y = kernels_floats(c, KERNELS_Y, n, s);
    v->s = kernels_floats(c, KERNELS_S, n, s);
    v->t = kernels_floats(c, KERNELS_T, n, s);
    v->b = kernels_floats(c, KERNELS_B, 1, s);
    v->sums = (double *)kernels_place(c, KERNELS_SUMS, 'd', blocks * sizeof(double));
    for (size_t i = 0; i < n; i++) v->t[i] = fabsf(v->t[i]);
    memset(v->sums, 0, blocks * sizeof(double));
    c->count = blocks;
}

/* Operations on columns: y, s, t are [n] (a table for the scatter), w and b are [rows]. */
static void kernels_fill_columns(kernels_case *c, size_t rows, size_t n, size_t gap, uint64_t *s) {
    static const size_t cuts[] = {1, 4, 6, 1027};
    dp__vec *v = &c->v;
    v->n = n;
    v->rows = rows;
    v->ldx = n + gap;
    v->ldz = n + gap / 2;
    v->ldy = n;
    v->x = kernels_floats(c, KERNELS_X, kernels_extent(rows, v->ldx, n), s);
    v->z = kernels_floats(c, KERNELS_Z, kernels_extent(rows, v->ldz, n), s);
    v->w = kernels_floats(c, KERNELS_W, rows, s);
    v->b = kernels_floats(c, KERNELS_B, rows, s);
    v->y = kernels_floats(c, KERNELS_Y, 5 * n, s);
    v->s = kernels_floats(c, KERNELS_S, n, s);
    v->t = kernels_floats(c, KERNELS_T, n, s);
    v->ids = kernels_ints(c, KERNELS_IDS, rows, 5, s);
    if (gap & 1) v->cuts = cuts, v->cut_count = 4;
    if (v->op == DP__VEC_QUANTIZE_COLUMNS) { /* tile images */
        size_t bytes = dp__pack8_bytes(n, rows);
        v->q = (uint8_t *)kernels_place(c, KERNELS_Q, 'b', bytes);
        memset(v->q, 7, bytes);
        v->panel = gap & 1 ? DP__TILE : DP__PANEL;
    }
    c->count = (n + DP__COLUMNS - 1) / DP__COLUMNS;
}

/* Operations whose rows may be read and written up to a multiple of 16. */
static int kernels_padded(int op) {
    return op == DP__VEC_SOFTMAX || op == DP__VEC_SOFTMAX_GRAD || op == DP__VEC_SOFTMAX8 ||
           op == DP__VEC_SOFTMAX16;
}

/* Operations that give pairs of bfloat16, or the floats in their place. */
static int kernels_pairs(int op) {
    return op == DP__VEC_BF16 || op == DP__VEC_BF16_DOWN || op == DP__VEC_SOFTMAX16;
}

/* INT8 tables of 4 rows and their scales instead of those of numbers. */
static void kernels_fill_codes(kernels_case *c, size_t n, uint64_t *s) {
    static const int regions[3] = {KERNELS_X, KERNELS_W, KERNELS_Z};
    static const int scales[3] = {KERNELS_S, KERNELS_T, KERNELS_B};
    const float    **tables[3] = {&c->v.x, &c->v.w, &c->v.z};
    for (int i = 0; i < 3; i++) {
        char *p = (char *)kernels_place(c, regions[i], 'b', 4 * n);
        for (size_t j = 0; j < 4 * n; j++) p[j] = (char)test_rnd(s);
        *tables[i] = (const float *)(const void *)p;
        c->v.scale[i] = kernels_floats(c, scales[i], 4, s);
    }
}

/* Operations on rows; tables have 4 rows. */
static void kernels_fill_rows(kernels_case *c, size_t rows, size_t n, size_t gap, uint64_t *s) {
    dp__vec *v = &c->v;
    int      down = v->op == DP__VEC_BF16_DOWN;
    size_t   place = v->op == DP__VEC_GATHER ? 4 : rows, exact = n, out = rows;
    if (kernels_padded(v->op)) n = (n + 15) / 16 * 16;
    if (v->op == DP__VEC_BF16) n = (n + 1) / 2 * 2;
    v->n = n;
    v->ldx = v->op == DP__VEC_GATHER ? n : n + gap;
    v->ldz = n + gap / 2;
    v->ldy = n + gap / 3;
    size_t read = v->op == DP__VEC_BF16 ? exact : n;
    v->x = kernels_floats(c, KERNELS_X, kernels_extent(place, v->ldx, read), s);
    v->z = kernels_floats(c, KERNELS_Z, kernels_extent(rows > 4 ? rows : 4, v->ldz, n), s);
    if (down) out = (rows + 1) / 2, v->rows = rows; /* pairs of rows */
    v->y = kernels_floats(c, KERNELS_Y, kernels_extent(down ? 2 * out : rows, v->ldy, n), s);
    v->w = kernels_floats(c, KERNELS_W, v->op == DP__VEC_GATHER ? 4 * n : n, s);
    v->b = kernels_floats(c, KERNELS_B, n, s);
    v->s = kernels_floats(c, KERNELS_S, rows, s);
    v->t = kernels_floats(c, KERNELS_T, rows, s);
    v->ids = kernels_ints(c, KERNELS_IDS, rows, (int32_t)(n < 4 ? n : 4), s);
    v->at = kernels_ints(c, KERNELS_AT, rows, 4, s);
    v->types = kernels_ints(c, KERNELS_TYPES, rows, 4, s);
    v->doc = (const uint32_t *)kernels_ints(c, KERNELS_DOC, rows, 1 << 30, s);
    v->ldq = (down ? 4 * n : kernels_pairs(v->op) ? 2 * n : n) + gap;
    if (v->op == DP__VEC_QUANTIZE) v->ldz = n + gap;
    v->q = (uint8_t *)kernels_place(c, KERNELS_Q, 'b', rows * v->ldq);
    memset(v->q, 7, rows * v->ldq);
    if (kernels_pairs(v->op) && gap & 1) v->q = NULL;
    if (v->op == DP__VEC_BF16 && gap & 2) v->s = NULL;
    if (gap & 1 && v->op == DP__VEC_DROPOUT) v->z = NULL;
    if (gap & 1 && v->op == DP__VEC_GATHER) kernels_fill_codes(c, n, s);
    v->n = exact;
    c->count = out;
}

/* Images of pairs in 1 to 3 tiles. */
static void kernels_fill_images(kernels_case *c, size_t blocks, size_t n, uint64_t *s) {
    c->v.n = 1 + n % 3;
    c->count = blocks;
    c->v.x = kernels_floats(c, KERNELS_X, blocks * c->v.n * DP__IMAGE, s);
    c->v.y = kernels_floats(c, KERNELS_Y, 2 * blocks * c->v.n * DP__IMAGE, s);
}

/* The case number seed of an operation: all arrays new. */
static void kernels_fill(kernels_case *c, int op, size_t n, uint64_t seed, int front, int special) {
    uint64_t s = seed;
    size_t   gap = seed % 8;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < KERNELS_REGIONS; i++) kernels_regions[i].bytes = 0;
    c->v.op = op;
    c->front = front;
    c->special = special;
    for (int i = 0; i < 8; i++) c->v.p[i] = 0.25f + (float)i / 16;
    c->v.key[0] = (uint32_t)seed, c->v.key[1] = 7, c->v.step = 3, c->v.site = 5;
    c->v.threshold = 20000;
    c->v.flag = &c->flag;
    if (op == DP__VEC_QUANTIZE) c->v.p[0] = seed & 1 ? 128.0f : 0.0f;
    if (op == DP__VEC_WIDEN) kernels_fill_images(c, 1 + seed % 4, n, &s);
    else if (op >= DP__VEC_COLUMN_SUMS) kernels_fill_columns(c, 1 + seed % 9, n, gap, &s);
    else if (op >= DP__VEC_ADAM && op <= DP__VEC_FINITE)
        kernels_fill_flat(c, n, &s);
    else kernels_fill_rows(c, 1 + seed % 4 + (front ? 7 : 0), n, gap, &s);
}

/* All regions one after another. */
static size_t kernels_snapshot(const kernels_case *c, unsigned char *to) {
    size_t at = 0;
    for (int i = 0; i < KERNELS_REGIONS; i++) {
        const kernels_region *r = &kernels_regions[i];
        if (r->bytes)
            memcpy(to + at, c->front ? r->g.p : r->g.p + KERNELS_BYTES - r->bytes, r->bytes);
        at += r->bytes;
    }
    memcpy(to + at, &c->flag, sizeof c->flag);
    return at + sizeof c->flag;
}

/* Equal bits; two NaN are equal whatever their payload, which depends on the operand order that
 * the compiler chose. Returns the first difference, or SIZE_MAX. */
static size_t kernels_difference(const unsigned char *a, const unsigned char *b) {
    size_t at = 0;
    for (int i = 0; i < KERNELS_REGIONS; at += kernels_regions[i].bytes, i++) {
        size_t bytes = kernels_regions[i].bytes;
        if (memcmp(a + at, b + at, bytes) == 0) continue;
        size_t size = kernels_regions[i].type == 'b' ? 1 : kernels_regions[i].type == 'd' ? 8 : 4;
        for (size_t j = 0; j < bytes; j += size) {
            if (memcmp(a + at + j, b + at + j, size) == 0) continue;
            float  fa = 0, fb = 0;
            double da = 0, db = 0;
            if (size == 4) memcpy(&fa, a + at + j, 4), memcpy(&fb, b + at + j, 4);
            if (size == 8) memcpy(&da, a + at + j, 8), memcpy(&db, b + at + j, 8);
            if (size == 1 || (fa == fa && da == da) || (fb == fb && db == db)) return at + j;
        }
    }
    return memcmp(a + at, b + at, sizeof(int32_t)) ? at : SIZE_MAX;
}

typedef void kernels_vec(const dp__vec *v, size_t begin, size_t end);

#define KERNELS_INSTANCES 4

/* The instances of this build that run here. NULL and a note where not. */
static kernels_vec *kernels_instance(int i, const char **name) {
    uint32_t cpu = dp__cpu_bits();
    *name = i == 0 ? "scalar" : i == 1 ? "avx2" : i == 2 ? "avx512" : "avx512-bf16";
    if (i == 0) return dp__vec_scalar;
#ifdef DP__AVX2
    if (i == 1 && cpu & DP__CPU_AVX2) return dp__vec_avx2;
#endif
#ifdef DP__AVX512
    if (cpu & DP__CPU_AVX512F && cpu & DP__CPU_AVX512VL) {
        if (i == 2) return dp__vec_avx512;
        if (i == 3 && cpu & DP__CPU_AVX512BF16) return dp__vec_avx512_bf16;
    }
#endif
    (void)cpu;
    return NULL;
}

static unsigned char kernels_image[2][KERNELS_REGIONS * KERNELS_BYTES + 8];

/* What stands behind a padded row afterwards is nobody's business. */
static void kernels_forget_padding(const kernels_case *c) {
    int codes = c->v.op == DP__VEC_SOFTMAX8 || c->v.op == DP__VEC_SOFTMAX16;
    for (size_t r = 0; codes && r < c->count; r++) { /* nor are the codes of a row without a sum */
        if (c->v.s[r] == c->v.s[r]) continue;
        if (c->v.q == NULL) memset(c->v.y + r * c->v.ldy, 0, dp__ceil(c->v.n, 2) * 4);
        else memset(c->v.q + r * c->v.ldq, 0, c->v.n * (c->v.op == DP__VEC_SOFTMAX8 ? 1 : 2));
    }
    if (!kernels_padded(c->v.op) || codes) return;
    for (size_t r = 0; r < c->count; r++)
        for (size_t j = c->v.n; j % 16 != 0; j++) c->v.y[r * c->v.ldy + j] = 0;
}

/* Runs a case on the scalar row, in one piece, and on another, in two; flip >= 0 damages one bit
 * of the second result. Returns 1 if both are equal. */
static int kernels_equal(kernels_vec *run, int op, size_t n, uint64_t seed, int front, int special,
                         int flip) {
    kernels_case c;
    kernels_fill(&c, op, n, seed, front, special);
    dp__vec_scalar(&c.v, 0, c.count);
    kernels_forget_padding(&c);
    kernels_snapshot(&c, kernels_image[0]);
    kernels_fill(&c, op, n, seed, front, special);
    run(&c.v, 0, c.count / 2);
    run(&c.v, c.count / 2, c.count);
    if (flip >= 0 && (op == DP__VEC_QUANTIZE || op == DP__VEC_SOFTMAX8 ||
                      (kernels_pairs(op) && c.v.q != NULL)))
        c.v.q[n / 2] ^= 1;
    else if (flip >= 0 && op == DP__VEC_NORM) memset(c.v.sums, 1, 1);
    else if (flip >= 0 && op == DP__VEC_FINITE) c.flag ^= 1;
    else if (flip >= 0 && (op == DP__VEC_LAYERNORM_PARAMS || op == DP__VEC_QUANTIZE_COLUMNS))
        ((uint32_t *)(void *)(op == DP__VEC_LAYERNORM_PARAMS ? c.v.t : c.v.s))[n / 2] ^= 1u << flip;
    else if (flip >= 0) ((uint32_t *)(void *)c.v.y)[n / 2] ^= 1u << flip;
    kernels_forget_padding(&c);
    kernels_snapshot(&c, kernels_image[1]);
    return kernels_difference(kernels_image[0], kernels_image[1]) == SIZE_MAX;
}

#define KERNELS_DIGEST 0xB183881D03CFD6DAu
#define KERNELS_OPS ((int)DP__VEC_SCATTER + 1)

/* All operations x lengths 1..65 and some long ones x strides x both guard pages x special
 * values, on every instance. */
static void test_vec_rows_equal(void) {
    static const size_t longer[] = {127, 128, 129, 768, 1000, 3072};
    const char *name;
    for (int i = 0; i < KERNELS_INSTANCES; i++) {
        kernels_vec *run = kernels_instance(i, &name);
        size_t cases = 0, wrong = 0;
        if (run == NULL) {
            test_skip(name, "the CPU or the build lacks it");
            continue;
        }
        for (int op = 0; op < KERNELS_OPS; op++) {
            for (size_t l = 1; l <= 65 + 6; l++) {
                size_t n = l <= 65 ? l : longer[l - 66];
                for (int kind = 0; kind < 4; kind++, cases++) {
                    uint64_t seed = test_seed + (uint64_t)op * 1000 + l * 7 + (uint64_t)kind;
                    if (kernels_equal(run, op, n, seed, kind & 1, kind >> 1, -1)) continue;
                    if (wrong++ < 5)
                        printf("    %s: op %d, n %zu, kind %d differs\n", name, op, n, kind);
                    FAIL("equal to the scalar row");
                }
            }
        }
        printf("     %s: %zu cases of %d operations, %zu differ\n", name, cases, KERNELS_OPS,
               wrong);
        CHECK(cases > 0);
    }
}

/* The results of every operation on the scalar row, as one number: the same from every compiler,
 * with vector types and without. A change of an operation changes it; then look why. */
static void test_vec_digest(void) {
    static const size_t lengths[] = {1, 7, 16, 33, 48, 100};
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a, 64 bits */
    for (int op = 0; op < KERNELS_OPS; op++)
        for (size_t l = 0; l < 6; l++) {
            kernels_case c;
            kernels_fill(&c, op, lengths[l], 1 + l, 0, 0);
            dp__vec_scalar(&c.v, 0, c.count);
            kernels_forget_padding(&c);
            size_t bytes = kernels_snapshot(&c, kernels_image[0]);
            for (size_t i = 0; i < bytes; i++)
                hash = (hash ^ kernels_image[0][i]) * 0x100000001B3u;
        }
    if (hash != KERNELS_DIGEST) printf("    digest %016llx\n", (unsigned long long)hash);
    CHECK(hash == KERNELS_DIGEST);
}

/* The comparison above must see one wrong bit of any operation on any row. */
static void test_vec_flip_is_seen(void) {
    const char *name;
    for (int i = 0; i < KERNELS_INSTANCES; i++) {
        kernels_vec *run = kernels_instance(i, &name);
        if (run == NULL) continue;
        for (int op = 0; op < KERNELS_OPS; op++) {
            CHECK(kernels_equal(run, op, 37, 3, 0, 0, -1));
            CHECK(!kernels_equal(run, op, 37, 3, 0, 0, 0));
            CHECK(!kernels_equal(run, op, 37, 3, 0, 0, 23));
        }
    }
}

/* ---- formulas against double, through the team ---------------------------------------------- */

#define KERNELS_ROWS 5
#define KERNELS_N 37
#define KERNELS_ALL (KERNELS_ROWS * KERNELS_N)

static double kernels_act(int act, double x) {
    if (act == DP__GELU || act == DP__GELU8) return x * 0.5 * erfc(-x * sqrt(0.5));
    if (act == DP__GELU_TANH)
        return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    if (act == DP__RELU) return x > 0 ? x : 0;
    if (act == DP__SILU) return x / (1 + exp(-x));
    if (act == DP__QUICK_GELU) return x / (1 + exp(-1.702 * x));
    if (act == DP__MISH) return x * tanh(log1p(exp(x)));
    return tanh(x);
}

/* Everyday exec: the best row of this machine, three threads. */
static void kernels_open(dp__exec *x) {
    dp_env env;
    DP_CLEAR(env);
    env.alloc.alloc = dp__default_alloc;
    env.alloc.free = dp__default_free;
    env.threads = 3;
    CHECK(dp__exec_open(x, &env, NULL) == DP_OK);
}

static dp__mat kernels_mat(float *p, size_t ld) {
    dp__mat x = {p, ld};
    return x;
}

/* An operation whose rows stand n apart. */
static dp__vec kernels_op(int op, float *y, float *x, float *z, size_t rows, size_t n) {
    return dp__vec_of(op, kernels_mat(y, n), kernels_mat(x, n), kernels_mat(z, n), rows, n);
}

static void kernels_column_sums(const dp__exec *e, float *sum, float *x, size_t rows, size_t n,
                                const size_t *cuts, size_t cut_count) {
    dp__vec v = kernels_op(DP__VEC_COLUMN_SUMS, sum, x, NULL, rows, n);
    v.cuts = cuts, v.cut_count = cut_count;
    dp__vec_run(e, &v);
}

static void kernels_random(float *p, size_t n, float size, uint64_t *s) {
    for (size_t i = 0; i < n; i++) p[i] = test_rndf(s) * size;
}

/* |a - b| <= bound for all elements; says the worst. */
static void kernels_near(const char *what, const float *got, const double *want, size_t n,
                         double bound) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        worst = test_larger(worst, fabs((double)got[i] - want[i]) / (1 + fabs(want[i])));
    }
    if (!(worst <= bound)) printf("    %s: off by %g, bound %g\n", what, worst, bound);
    CHECK(worst <= bound);
}

/* GELU over a fine grid: the error in units of 2^-24 max(1, |x|), and relative to the result. */
static void test_act_gelu_bounds(void) {
    double absolute = 0, relative = 0;
    for (int i = -160000; i <= 160000; i += 8) {
        float y[8], x[8];
        for (int j = 0; j < 8; j++) x[j] = y[j] = (float)(i + j) / 16000.0f;
        kernels_gelu(y);
        for (int j = 0; j < 8; j++) {
            double want = kernels_act(DP__GELU, (double)x[j]), off = fabs((double)y[j] - want);
            double scale = fabs((double)x[j]) > 1 ? fabs((double)x[j]) : 1;
            absolute = test_larger(absolute, off / scale);
            if (fabs((double)x[j]) < 6 && want != 0)
                relative = test_larger(relative, off / fabs(want));
        }
    }
    printf("     gelu: absolute %.3g, relative for |x| < 6 %.3g\n", absolute, relative);
    CHECK(absolute <= 1.6e-7 && relative <= 4e-6);
}

static void test_act_formulas(void) {
    const float far[8] = {0.5f, -0.5f, 20, -20, 60, -60, 1e4f, -1e4f};
    float    x[KERNELS_ALL], y[KERNELS_ALL], dy[KERNELS_ALL];
    double   want[KERNELS_ALL], slope[KERNELS_ALL];
    uint64_t s = test_seed;
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, KERNELS_ALL, 8, &s);
    kernels_random(dy, KERNELS_ALL, 2, &s);
    memcpy(x, far, sizeof far);
    for (int act = 0; act < DP__ACT_COUNT; act++) {
        for (size_t i = 0; i < KERNELS_ALL; i++) {
            double a = (double)x[i], h = 1e-5;
            want[i] = kernels_act(act, a);
            slope[i] = (kernels_act(act, a + h) - kernels_act(act, a - h)) / (2 * h);
            slope[i] *= (double)dy[i];
        }
        dp__vec v = kernels_op(DP__VEC_ACT + act, y, x, NULL, KERNELS_ROWS, KERNELS_N);
        dp__vec_run(&e, &v);
        kernels_near("act", y, want, KERNELS_ALL, 4e-7);
        v = kernels_op(DP__VEC_ACT_GRAD + act, y, dy, x, KERNELS_ROWS, KERNELS_N);
        dp__vec_run(&e, &v);
        kernels_near("act gradient", y, slope, KERNELS_ALL, 2e-6);
    }
    dp__exec_close(&e);
}

/* No activation hides a NaN; nor does a slope, but ReLU's, which is 0 where x > 0 is not true.
 * GELU8 has none. */
static void test_act_nan(void) {
    float    x[8], one[8], y[8];
    dp__exec e;
    kernels_open(&e);
    for (int i = 0; i < 8; i++) x[i] = NAN, one[i] = 1;
    for (int act = 0; act <= DP__GELU8; act++) {
        dp__vec v = kernels_op(DP__VEC_ACT + act, y, x, NULL, 1, 8);
        dp__vec_run(&e, &v);
        for (int i = 0; i < 8; i++) CHECK(isnan(y[i]));
        if (act == DP__GELU8) continue;
        v = kernels_op(DP__VEC_ACT_GRAD + act, y, one, x, 1, 8);
        dp__vec_run(&e, &v);
        for (int i = 0; i < 8; i++) CHECK(isnan(y[i]) || (act == DP__RELU && y[i] == 0));
    }
    dp__exec_close(&e);
}

/* Outputs may be their input of the same shape and stride. */
static void test_vec_in_place(void) {
    enum { R = 3, L = 48 };
    static const int ops[] = {DP__VEC_ACT, DP__VEC_ACT + 4, DP__VEC_ACT_GRAD, DP__VEC_ACT_GRAD + 3,
                              DP__VEC_DROPOUT, DP__VEC_LAYERNORM, DP__VEC_LAYERNORM_GRAD,
                              DP__VEC_SOFTMAX, DP__VEC_SOFTMAX_GRAD};
    const char *name;
    for (int i = 0; i < KERNELS_INSTANCES; i++) {
        kernels_vec *run = kernels_instance(i, &name);
        for (size_t o = 0; run != NULL && o < sizeof ops / sizeof *ops; o++) {
            for (size_t n = 1; n <= L; n++) {
                kernels_case c;
                float        x[R * L], y[R * L];
                uint64_t     s = n;
                kernels_fill(&c, ops[o], n, 2, 0, 0); /* 3 rows */
                CHECK_INT(c.count, R);
                kernels_random(x, R * L, 5, &s);
                c.v.x = x, c.v.y = y, c.v.ldx = c.v.ldy = L;
                run(&c.v, 0, R);
                c.v.y = x;
                run(&c.v, 0, R);
                for (size_t r = 0; r < R; r++)
                    CHECK(memcmp(x + r * L, y + r * L, n * sizeof *x) == 0);
            }
        }
    }
}

static void test_vec_layernorm(void) {
    enum { R = KERNELS_ROWS, N = KERNELS_N };
    float    x[R * N], y[R * N], dy[R * N], dx[R * N], gamma[N], beta[N], mean[R], rstd[R];
    float    dgamma[N], dbeta[N];
    double   want[R * N], dwant[R * N], gwant[N] = {0}, bwant[N] = {0};
    uint64_t s = test_seed;
    size_t   cuts[2] = {2, 3};
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, R * N, 3, &s), kernels_random(dy, R * N, 1, &s);
    kernels_random(gamma, N, 2, &s), kernels_random(beta, N, 1, &s);
    for (size_t r = 0; r < R; r++) {
        double m = 0, var = 0, g = 0, gh = 0, root;
        for (size_t j = 0; j < N; j++) m += (double)x[r * N + j] / (double)N;
        for (size_t j = 0; j < N; j++) var += pow((double)x[r * N + j] - m, 2) / (double)N;
        root = 1 / sqrt(var + 1e-5);
        for (size_t j = 0; j < N; j++) {
            double h = ((double)x[r * N + j] - m) * root, d = (double)dy[r * N + j];
            want[r * N + j] = h * (double)gamma[j] + (double)beta[j];
            g += d * (double)gamma[j] / (double)N, gh += d * (double)gamma[j] * h / (double)N;
            gwant[j] += d * h, bwant[j] += d;
        }
        for (size_t j = 0; j < N; j++)
            dwant[r * N + j] = root * ((double)dy[r * N + j] * (double)gamma[j] - g -
                                       ((double)x[r * N + j] - m) * root * gh);
    }
    dp__vec v = kernels_op(DP__VEC_LAYERNORM, y, x, NULL, R, N);
    v.w = gamma, v.b = beta, v.s = mean, v.t = rstd, v.p[0] = 1e-5f;
    dp__vec_run(&e, &v);
    kernels_near("layernorm", y, want, R * N, 1e-6);
    float kept = x[N + 1];
    x[N + 1] = 2e19f; /* its square is infinite */
    dp__vec_run(&e, &v);
    CHECK(y[N] != y[N] && y[2 * N - 1] != y[2 * N - 1] && rstd[1] != rstd[1] && y[0] == y[0]);
    x[N + 1] = kept;
    dp__vec_run(&e, &v);
    v = kernels_op(DP__VEC_LAYERNORM_GRAD, dx, dy, x, R, N);
    v.w = gamma, v.s = mean, v.t = rstd;
    dp__vec_run(&e, &v);
    kernels_near("layernorm dx", dx, dwant, R * N, 2e-6);
    memset(dgamma, 0, sizeof dgamma), memset(dbeta, 0, sizeof dbeta);
    v = kernels_op(DP__VEC_LAYERNORM_PARAMS, NULL, dy, x, R, N);
    v.w = mean, v.b = rstd, v.s = dgamma, v.t = dbeta, v.cuts = cuts, v.cut_count = 2;
    dp__vec_run(&e, &v);
    kernels_near("layernorm dgamma", dgamma, gwant, N, 2e-6);
    kernels_near("layernorm dbeta", dbeta, bwant, N, 2e-6);
    dp__exec_close(&e);
}

static void test_vec_softmax(void) {
    enum { R = KERNELS_ROWS, N = KERNELS_N, L = 48 }; /* L: rows are padded */
    float    x[R * L], y[R * L], dy[R * L], dx[R * L];
    double   want[R * L], dwant[R * L];
    uint64_t s = test_seed;
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, R * L, 40, &s), kernels_random(dy, R * L, 1, &s);
    for (size_t r = 0; r < R; r++) {
        double sum = 0, dot = 0;
        for (size_t j = 0; j < N; j++) sum += exp(0.125 * (double)x[r * L + j]);
        for (size_t j = 0; j < N; j++) {
            want[r * L + j] = exp(0.125 * (double)x[r * L + j]) / sum;
            dot += want[r * L + j] * (double)dy[r * L + j];
        }
        for (size_t j = 0; j < N; j++)
            dwant[r * L + j] = 0.125 * want[r * L + j] * ((double)dy[r * L + j] - dot);
    }
    dp__mat xm = kernels_mat(x, L), ym = kernels_mat(y, L), none = kernels_mat(NULL, 0);
    dp__vec v = dp__vec_of(DP__VEC_SOFTMAX, ym, xm, none, R, N);
    v.p[0] = 0.125f;
    dp__vec_run(&e, &v);
    for (size_t r = 0; r < R; r++) kernels_near("softmax", y + r * L, want + r * L, N, 1e-6);
    v = dp__vec_of(DP__VEC_SOFTMAX_GRAD, kernels_mat(dx, L), kernels_mat(dy, L), ym, R, N);
    v.p[0] = 0.125f;
    dp__vec_run(&e, &v);
    for (size_t r = 0; r < R; r++)
        kernels_near("softmax gradient", dx + r * L, dwant + r * L, N, 1e-6);
    dp__exec_close(&e);
}

/* Codes times 1 / sum: within half a unit of a bfloat16, or half a code, of the probability. */
static void test_vec_softmax_codes(void) {
    enum { R = KERNELS_ROWS, N = KERNELS_N, L = 48 };
    float    x[R * L], got[R * L], y[R * L], s[R];
    uint16_t half[R * L];
    uint8_t  code[R * L];
    double   want[R * L], all = 0;
    uint64_t seed = test_seed;
    kernels_random(x, R * L, 40, &seed);
    for (size_t r = 0; r < R; r++) {
        double sum = 0;
        for (size_t j = 0; j < N; j++) sum += exp(0.125 * (double)x[r * L + j]);
        for (size_t j = 0; j < N; j++)
            want[r * L + j] = exp(0.125 * (double)x[r * L + j]) / sum;
    }
    for (int form = 0; form < 3; form++) { /* INT8, pairs, floats in their place */
        dp__vec v = dp__vec_of(form ? DP__VEC_SOFTMAX16 : DP__VEC_SOFTMAX8, kernels_mat(y, L),
                               kernels_mat(x, L), kernels_mat(NULL, 0), R, N);
        v.p[0] = 0.125f;
        v.s = s;
        if (form < 2) v.q = form ? (uint8_t *)half : code, v.ldq = form ? 2 * L : L;
        dp__vec_scalar(&v, 0, R);
        for (size_t r = 0; r < R; r++) {
            double most = 0;
            for (size_t j = 0; j < N; j++) if (most < want[r * L + j]) most = want[r * L + j];
            all = 0;
            for (size_t j = 0; j < N; j++) {
                size_t i = r * L + j;
                got[i] = form == 0 ? (float)code[i]
                         : form == 1 ? kernels_float((uint32_t)half[i] << 16) : y[r * L + (j ^ 1)];
                got[i] *= s[r];
                all += (double)got[i];
                double bound = form ? want[i] / 128 + 1e-9 : most / 255;
                CHECK(fabs((double)got[i] - want[i]) <= bound);
            }
            CHECK(fabs(all - 1) < (form ? 0.004 : 1e-6));
        }
    }
}

static void test_vec_losses(void) {
    enum { R = KERNELS_ROWS, N = KERNELS_N };
    float    x[R * N], z[R * N], dx[R * N], loss[R];
    double   want[3][R], dwant[3][R * N];
    int32_t  labels[R];
    uint64_t s = test_seed;
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, R * N, 9, &s), kernels_random(z, R * N, 1, &s);
    memset(want, 0, sizeof want);
    for (size_t r = 0; r < R; r++) {
        double sum = 0;
        labels[r] = (int32_t)(test_rnd(&s) % N);
        for (size_t j = 0; j < N; j++) sum += exp((double)x[r * N + j]);
        want[0][r] = log(sum) - (double)x[r * N + (size_t)labels[r]];
        for (size_t j = 0; j < N; j++) {
            double a = (double)x[r * N + j], b = (double)z[r * N + j];
            dwant[0][r * N + j] = 0.5 * (exp(a) / sum - (j == (size_t)labels[r]));
            want[1][r] += -b * log(1 / (1 + exp(-a))) - (1 - b) * log(1 / (1 + exp(a)));
            dwant[1][r * N + j] = 0.5 * (1 / (1 + exp(-a)) - b);
            want[2][r] += (a - b) * (a - b);
            dwant[2][r * N + j] = a - b;
        }
    }
    for (int p = 0; p < 3; p++) {
        static const int ops[3] = {DP__VEC_CROSS_ENTROPY, DP__VEC_BCE, DP__VEC_SQUARES};
        dp__vec v = kernels_op(ops[p], dx, x, z, R, N);
        v.s = loss, v.ids = labels, v.p[0] = 0.5f;
        dp__vec_run(&e, &v);
        kernels_near("loss", loss, want[p], R, 2e-6);
        kernels_near("dlogits", dx, dwant[p], R * N, 1e-6);
    }
    dp__exec_close(&e);
}

/* Embedding and its gradient, column sums with cuts, norms. */
static void test_vec_simple(void) {
    enum { R = KERNELS_ROWS, N = KERNELS_N };
    float    x[R * N], z[R * N], y[R * N], w[N], table[3 * N];
    double   want[R * N], sums[N] = {0}, grad[3 * N] = {0}, blocks[3], norm = 0;
    int32_t  ids[R] = {2, 0, 2, 1, 2}, types[R] = {0, 1, 0, 1, 1}, at[R] = {0, 1, 2, 0, 1};
    uint64_t s = test_seed;
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, R * N, 3, &s), kernels_random(z, R * N, 3, &s);
    kernels_random(w, N, 3, &s), kernels_random(table, 3 * N, 3, &s);
    for (size_t i = 0; i < R * N; i++)
        want[i] = (double)table[(size_t)ids[i / N] * N + i % N] +
                  (double)x[(size_t)types[i / N] * N + i % N] +
                  (double)z[(size_t)at[i / N] * N + i % N];
    dp__vec v = kernels_op(DP__VEC_GATHER, y, table, z, R, N);
    v.w = x, v.ids = ids, v.types = types, v.at = at;
    dp__vec_run(&e, &v);
    kernels_near("embedding", y, want, R * N, 2e-7);
    int8_t codes[3 * N]; /* of all three tables, each with scales of its own */
    for (size_t i = 0; i < 3 * N; i++) codes[i] = (int8_t)test_rnd(&s);
    for (size_t i = 0; i < R * N; i++)
        want[i] = (double)w[ids[i / N]] * codes[(size_t)ids[i / N] * N + i % N] +
                  (double)w[types[i / N] + 3] * codes[(size_t)types[i / N] * N + i % N] +
                  (double)w[at[i / N] + 5] * codes[(size_t)at[i / N] * N + i % N];
    v.x = v.w = v.z = (const float *)(const void *)codes;
    v.scale[0] = w, v.scale[1] = w + 3, v.scale[2] = w + 5;
    dp__vec_run(&e, &v);
    /* products below 384: five roundings of up to 2^-24 of 384, 384, 384, 768 and 1152 */
    kernels_near("embedding by codes", y, want, R * N, 1.9e-4);
    memset(table, 0, sizeof table), memset(w, 0, sizeof w);
    for (size_t i = 0; i < R * N; i++) {
        grad[(size_t)ids[i / N] * N + i % N] += (double)x[i];
        sums[i % N] += (double)x[i];
        norm += (double)x[i] * (double)x[i];
    }
    v = kernels_op(DP__VEC_SCATTER, table, x, NULL, R, N);
    v.ids = ids;
    dp__vec_run(&e, &v);
    kernels_near("embedding gradient", table, grad, 3 * N, 4e-7);
    kernels_column_sums(&e, w, x, R, N, NULL, 0);
    kernels_near("column sums", w, sums, N, 4e-7);
    CHECK(fabs(dp__squared_norm(&e, x, R * N, blocks) - norm) < 1e-6 * norm);
    CHECK(dp__all_finite(&e, x, R * N));
    for (size_t i = 0; i < R * N; i += 11) {
        float kept = x[i];
        x[i] = i % 2 ? NAN : -INFINITY;
        CHECK(!dp__all_finite(&e, x, R * N));
        x[i] = kept;
    }
    dp__exec_close(&e);
}

/* Column sums begin a new chain at every cut and after 1,024 rows. */
static void test_vec_cuts(void) {
    enum { R = 2100 };
    float    x[R], got = 0.5f, want = 0.5f, piece = 0;
    size_t   cuts[3] = {7, 1000, 2050};
    uint64_t s = test_seed;
    dp__exec e;
    kernels_open(&e);
    kernels_random(x, R, 1, &s);
    for (size_t r = 0; r < R; r++) {
        if (r == 7 || r == 1000 || r == 2024 || r == 2050) want += piece, piece = 0;
        piece += x[r];
    }
    want += piece;
    kernels_column_sums(&e, &got, x, R, 1, cuts, 3);
    CHECK(got == want);
    float whole = 0.5f, parts = 0.5f; /* cut in two where a cut lies: the same bits */
    kernels_column_sums(&e, &whole, x, 1000, 1, cuts, 3);
    kernels_column_sums(&e, &parts, x, 7, 1, NULL, 0);
    kernels_column_sums(&e, &parts, x + 7, 993, 1, NULL, 0);
    CHECK(whole == parts);
    dp__exec_close(&e);
}

/* Philox4x32-10 once more, as its paper writes it. */
static void kernels_philox(const uint32_t key[2], uint32_t c[4]) {
    uint32_t k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
        memcpy(c, next, sizeof next);
        k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u;
    }
}

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
static void test_dropout_philox(void) {
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD},
        {0xA4093822, 0x299F31D0, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xD16CFE09,
         0x94FDCCEB, 0x5001E420, 0x24126EA1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t c[4];
        memcpy(c, known[i] + 2, sizeof c);
        kernels_philox(known[i], c);
        CHECK(memcmp(c, known[i] + 6, sizeof c) == 0);
        dp__quad lanes[4][DP__QUADS];
        uint64_t block[4];
        memset(lanes, 0, sizeof lanes);
        for (int w = 0; w < 4; w++)
            for (size_t j = 0; j < DP__QUADS; j++) lanes[w][j] += known[i][2 + w];
        dp__philox_lanes(known[i], lanes);
        for (int w = 0; w < 4; w++) {
            memcpy(block, lanes[w], sizeof block);
            for (int j = 0; j < 4; j++) CHECK_INT((uint32_t)block[j], known[i][6 + w]);
        }
    }
}

/* Each element's decision is the 16-bit word of its own block; rates; residual; same mask in any
 * batch and in the backward pass; different for another step, site, document, seed. */
static void test_dropout_masks(void) {
    enum { R = 64, N = 45 };
    static float   x[R * N], y[R * N], other[R * N];
    uint32_t       doc[R];
    int32_t        at[R];
    dp__dropping   where = {0x123456789ABCDEFu, 9, 0, 0, 0};
    dp__mat        xm = kernels_mat(x, N), ym = kernels_mat(y, N), om = kernels_mat(other, N);
    dp__mat        none = kernels_mat(NULL, 0);
    dp__exec       e;
    size_t         zeros = 0;
    uint32_t       threshold = 6554;
    kernels_open(&e);
    for (size_t i = 0; i < R * N; i++) x[i] = 1 + (float)(i % 7);
    for (size_t r = 0; r < R; r++) { /* some blocks have numbers of more than 32 bits */
        doc[r] = (uint32_t)(r / 10);
        at[r] = (int32_t)(r % 10 + (r >= 40 ? 0x7FFFFF00 : 0));
    }
    dp__vec v = dp__dropout(&where, 0.1f, 14, doc, at, ym, xm, none, R, N);
    dp__vec_run(&e, &v);
    for (size_t i = 0; i < R * N; i++) {
        uint32_t key[2] = {0x89ABCDEFu, 0x1234567u};
        uint32_t j = (uint32_t)(i % N % 32);
        uint64_t block = ((uint64_t)at[i / N] * 2 + i % N / 32) * 4 + j % 8 / 2;
        uint32_t c[4] = {(uint32_t)block, doc[i / N], 9, 14 | (uint32_t)(block >> 32 << 12)};
        kernels_philox(key, c);
        int dropped = (c[j / 16 * 2 + j % 2] >> (j % 16 / 8 * 16) & 0xFFFF) < threshold;
        CHECK(y[i] == (dropped ? 0 : x[i] * (65536.0f / (65536 - 6554))));
        zeros += (size_t)dropped;
    }
    CHECK(fabs((double)zeros / (R * N) - 0.1) < 0.02);
    v = dp__dropout(&where, 0.1f, 14, doc + 5, at + 5, om, xm, xm, R - 5, N);
    dp__vec_run(&e, &v);
    for (size_t i = 0; i < (R - 5) * N; i++)
        CHECK((other[i] == x[i]) == (y[i + 5 * N] == 0)); /* the residual is added */
    for (int change = 0; change < 3; change++) {
        dp__dropping moved = where;
        if (change == 0) moved.seed ^= 1;
        if (change == 1) moved.step ^= 1;
        v = dp__dropout(&moved, 0.1f, change == 2 ? 15 : 14, doc, at, om, xm, none, R, N);
        dp__vec_run(&e, &v);
        size_t same = 0;
        for (size_t i = 0; i < R * N; i++) same += (other[i] == 0) && (y[i] == 0);
        CHECK(same < zeros / 3);
    }
    v = dp__dropout(&where, 0, 14, doc, at, ym, xm, none, R, N);
    dp__vec_run(&e, &v);
    CHECK(memcmp(x, y, sizeof x) == 0);
    dp__exec_close(&e);
}

/* ---- quantization --------------------------------------------------------------------------- */

#define KERNELS_U (1.0 / 16777216) /* half of a unit in the last place of 1 */

/* The code of each element and the scale of one row. */
static float kernels_quantize(const dp__exec *e, int8_t *q, float *x, size_t n) {
    float   scale;
    uint8_t codes[512];
    dp__mat row = kernels_mat(x, n);
    dp__vec is_signed = dp__quantizing((uint8_t *)q, n, n, 0, &scale, row, 1, n);
    dp__vec is_moved = dp__quantizing(codes, 512, n + 3, 128, &scale, row, 1, n);
    dp__vec_run(e, &is_signed);
    dp__vec_run(e, &is_moved);
    for (size_t i = 0; i < n && scale <= FLT_MAX; i++) CHECK_INT(codes[i], q[i] + 128);
    for (size_t i = n; i < n + 3; i++) CHECK_INT(codes[i], 128);
    return scale;
}

/* |x - s q| <= (1/2 + 255 u) s, q(-x) = -q(x), |q| <= 127 and reached, monotone, ties to even. */
static void test_quant_properties(void) {
    dp__exec e;
    uint64_t s = test_seed;
    kernels_open(&e);
    for (int round = 0; round < 2000; round++) {
        float  x[64], minus[64], size = ldexpf(1, (int)(test_rnd(&s) % 240) - 120);
        int8_t q[64], qm[64];
        int    most = 0;
        kernels_random(x, 64, size, &s);
        x[0] = 0;
        for (size_t i = 0; i < 64; i++) minus[i] = -x[i];
        float scale = kernels_quantize(&e, q, x, 64);
        CHECK(kernels_quantize(&e, qm, minus, 64) == scale);
        CHECK_INT(q[0], 0);
        for (size_t i = 0; i < 64; i++) {
            double off = fabs((double)x[i] - (double)scale * q[i]);
            CHECK(off <= (double)scale * (0.5 + 255 * KERNELS_U) || scale == FLT_MIN);
            CHECK(q[i] >= -127 && qm[i] == -q[i]);
            if (abs(q[i]) > most) most = abs(q[i]);
            for (size_t j = 0; j < 64; j++) CHECK(!(x[i] < x[j]) || q[i] <= q[j]);
        }
        CHECK(most == 127 || scale == FLT_MIN);
    }
    float  ties[8] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f};
    int8_t q[8], want[8] = {127, 0, 2, 2, 0, -2, -2, 126};
    CHECK(kernels_quantize(&e, q, ties, 8) == 1);
    CHECK(memcmp(q, want, sizeof q) == 0);
    dp__exec_close(&e);
}

/* A zero row has scale 1; denormals keep 1 / scale finite; NaN and infinity show in the scale. */
static void test_quant_special(void) {
    static const float odd[5] = {0, 1e-42f, FLT_MIN, INFINITY, NAN};
    dp__exec e;
    int8_t   q[5];
    kernels_open(&e);
    for (int i = 0; i < 5; i++) {
        float x[5] = {0, 0, odd[i], -0.0f, 0};
        float scale = kernels_quantize(&e, q, x, 5);
        if (i == 0) CHECK(scale == 1);
        else if (i < 3) CHECK(scale == FLT_MIN);
        else CHECK(!(scale <= FLT_MAX));
        if (i < 2) for (int j = 0; j < 5; j++) CHECK_INT(q[j], 0);
        if (i == 2) CHECK_INT(q[2], 1);
    }
    dp__exec_close(&e);
}

/* |sum x w - sx sw sum qx qw| <= (sw / 2) |x|_1 + (sx / 2) |w|_1 + K sx sw / 4, and vectors that
 * come near it: all errors at half a step with one sign. */
static void test_quant_dot_bound(void) {
    enum { K = 256 };
    dp__exec e;
    uint64_t s = test_seed;
    double   worst = 0, built = 0;
    kernels_open(&e);
    for (int round = 0; round <= 200; round++) {
        float  x[K], w[K];
        int8_t qx[K], qw[K];
        double exact = 0, ones = 0, onew = 0;
        long   sum = 0;
        kernels_random(x, K, 3, &s), kernels_random(w, K, 1, &s);
        for (size_t i = 0; round == 200 && i < K; i++) {
            x[i] = i == 0 ? 127 : 100.499f;
            w[i] = i == 1 ? 127 : 100.499f;
        }
        double sx = (double)kernels_quantize(&e, qx, x, K);
        double sw = (double)kernels_quantize(&e, qw, w, K);
        for (size_t i = 0; i < K; i++) {
            exact += (double)x[i] * (double)w[i];
            ones += fabs((double)x[i]), onew += fabs((double)w[i]);
            sum += (long)qx[i] * (long)qw[i];
        }
        double bound = sw / 2 * ones + sx / 2 * onew + (double)K * sx * sw / 4;
        double ratio = fabs(exact - sx * sw * (double)sum) / bound;
        if (round == 200) built = ratio;
        else worst = test_larger(worst, ratio);
    }
    printf("     random %.3f of the bound, built %.3f\n", worst, built);
    CHECK(worst <= 0.3 && built > 0.9 && built <= 1);
    dp__exec_close(&e);
}

/* ---- optimizer ------------------------------------------------------------------------------ */

/* 60 steps of Adam and AdamW in double; moments that die out become exactly 0. */
static void test_adam_double(void) {
    enum { N = 50 };
    dp__exec e;
    kernels_open(&e);
    for (int decoupled = 0; decoupled < 2; decoupled++) {
        float            w[N], g[N], m[N] = {0}, v[N] = {0}, eps = 1e-8f;
        double           dw[N], dm[N] = {0}, dv[N] = {0};
        uint64_t         s = test_seed, t;
        dp__optim        a = {N, w, g, m, v, NULL};
        dp_train_options o;
        dp__vec          op;
        DP_CLEAR(o);
        o.beta1 = 0.9, o.beta2 = 0.999, o.weight_decay = 0.01;
        o.optimizer = decoupled ? DP_ADAMW : DP_ADAM;
        kernels_random(w, N, 1, &s);
        for (size_t i = 0; i < N; i++) dw[i] = (double)w[i];
        for (t = 1; t <= 60; t++) {
            kernels_random(g, N, 1, &s);
            op = dp__optim_vec(&a, &o, 1e-3, t, 0.5, &eps);
            dp__vec_run(&e, &op);
            for (size_t i = 0; i < N; i++) {
                double d = 0.5 * (double)g[i] + (decoupled ? 0 : 0.01 * dw[i]);
                if (decoupled) dw[i] *= 1 - 1e-3 * 0.01;
                dm[i] = 0.9 * dm[i] + 0.1 * d;
                dv[i] = 0.999 * dv[i] + 0.001 * d * d;
                dw[i] -= 1e-3 * (dm[i] / (1 - pow(0.9, (double)t))) /
                         (sqrt(dv[i] / (1 - pow(0.999, (double)t))) + 1e-8);
            }
        }
        kernels_near("weights", w, dw, N, 1e-6);
        kernels_near("first moment", m, dm, N, 1e-6);
        kernels_near("second moment", v, dv, N, 1e-6);
        memset(g, 0, sizeof g);
        o.weight_decay = 0;
        op = dp__optim_vec(&a, &o, 1e-3, t, 0.5, &eps);
        for (int i = 0; i < 1000; i++) dp__vec_run(&e, &op);
        for (size_t i = 0; i < N; i++) CHECK(m[i] == 0 && v[i] > 0);
    }
    dp__exec_close(&e);
}

static const test tests_kernels[] = {
    {"format_f16", test_format_f16},
    {"format_bf16", test_format_bf16},
    {"format_bf16_round", test_format_bf16_round},
    {"exp_all", test_exp_all},
    {"log_all", test_log_all},
    {"tanh_all", test_tanh_all},
    {"phi_all", test_phi_all},
    {"gelu8_all", test_gelu8_all},
    {"vec_rows_equal", test_vec_rows_equal},
    {"vec_digest", test_vec_digest},
    {"vec_flip_is_seen", test_vec_flip_is_seen},
    {"act_gelu_bounds", test_act_gelu_bounds},
    {"act_formulas", test_act_formulas},
    {"act_nan", test_act_nan},
    {"vec_in_place", test_vec_in_place},
    {"vec_layernorm", test_vec_layernorm},
    {"vec_softmax", test_vec_softmax},
    {"vec_softmax_codes", test_vec_softmax_codes},
    {"vec_losses", test_vec_losses},
    {"vec_simple", test_vec_simple},
    {"vec_cuts", test_vec_cuts},
    {"dropout_philox", test_dropout_philox},
    {"dropout_masks", test_dropout_masks},
    {"quant_properties", test_quant_properties},
    {"quant_special", test_quant_special},
    {"quant_dot_bound", test_quant_dot_bound},
    {"adam_double", test_adam_double},
};
