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

static void test_format_bf16(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        float    x = dp__bf16_to_f32((uint16_t)h);
        uint32_t e = h >> 7 & 255, bits = dp__f32_bits(x);
        CHECK_INT(bits, h << 16);
        if (e == 255 && (h & 127)) CHECK_INT(dp__f32_to_bf16(x), h | 0x40);
        else if (e == 0) CHECK_INT(dp__f32_to_bf16(x), h & 0x8000);
        else CHECK_INT(dp__f32_to_bf16(x), h);
        if (e == 0 || e == 255) continue;
        CHECK_INT(dp__f32_to_bf16(dp__bits_f32(bits + 0x7FFF)), h);
        CHECK_INT(dp__f32_to_bf16(dp__bits_f32(bits + 0x8000)), h + (h & 1));
        CHECK_INT(dp__f32_to_bf16(dp__bits_f32(bits + 0x8001)), h + 1);
    }
    CHECK_INT(dp__f32_to_bf16(dp__bits_f32(0x7F800001)), 0x7FC0); /* NaN whose payload is low */
}

static void test_format_round(void) {
    uint64_t s = test_seed;
    for (int i = -2000; i <= 2000; i++) {
        float half = (float)i / 2;
        CHECK_INT(dp__round_f32(half), (int)nearbyint((double)half));
        float above = nextafterf(half, 4000);
        CHECK_INT(dp__round_f32(above), (int)nearbyint((double)above));
    }
    for (int i = 0; i < 100000; i++) {
        float x = test_rndf(&s) * 4194304.0f;
        CHECK_INT(dp__round_f32(x), (int)nearbyint((double)x));
    }
}

/* ---- E2: elementary functions -------------------------------------------------------------- */

typedef struct kernels_function {
    const char *name;
    void (*run)(float *x); /* [8], in place */
    double (*want)(double);
    double ulp;            /* bound asserted */
    float  flush;          /* results may be 0 where |want| is at most this */
} kernels_function;

static void kernels_exp(float *x) {
    dp__v8 v;
    memcpy(&v, x, sizeof v);
    dp__exp_lanes(&v);
    memcpy(x, &v, sizeof v);
}

static void kernels_log(float *x) {
    dp__v8 v;
    memcpy(&v, x, sizeof v);
    dp__log_lanes(&v);
    memcpy(x, &v, sizeof v);
}

static void kernels_tanh(float *x) {
    dp__v8 v;
    memcpy(&v, x, sizeof v);
    dp__tanh_lanes(&v);
    memcpy(x, &v, sizeof v);
}

static void kernels_erf(float *x) {
    dp__v8 v;
    memcpy(&v, x, sizeof v);
    dp__erf_lanes(&v);
    memcpy(x, &v, sizeof v);
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

/* All floats (long) or every 4,099th, in both halves: error, oddness is in the bound. */
static void kernels_sweep(const kernels_function *f) {
    uint64_t step = test_long() ? 1 : 4099;
    double   worst = 0;
    uint32_t at = 0;
    float    block[8], in[8];
    for (uint64_t base = 0; base < 0x100000000u; base += 8 * step) {
        for (uint32_t j = 0; j < 8; j++)
            in[j] = block[j] = dp__bits_f32((uint32_t)(base + j * step));
        f->run(block);
        for (uint32_t j = 0; j < 8; j++) {
            double want = f->want((double)in[j]), ulp;
            if (fabs(want) <= (double)f->flush && block[j] == 0) continue;
            ulp = kernels_ulp(block[j], want);
            if (ulp > worst) worst = ulp, at = dp__f32_bits(in[j]);
        }
    }
    printf("     %s: at most %.4f ulp, at %08x\n", f->name, worst, at);
    CHECK(worst <= f->ulp);
}

static void test_exp_all(void) {
    static const kernels_function f = {"exp", kernels_exp, exp, 1.1, 1.9e-38f};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 88.72283f, 88.72284f, -1e30f};
    kernels_sweep(&f);
    kernels_exp(special);
    CHECK(special[0] == 1 && special[1] == 1 && special[2] == INFINITY);
    CHECK(dp__f32_bits(special[3]) == 0 && special[4] != special[4]);
    CHECK(special[5] <= FLT_MAX && special[6] == INFINITY && dp__f32_bits(special[7]) == 0);
}

static void test_log_all(void) {
    static const kernels_function f = {"log", kernels_log, log, 1.1, 0};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, FLT_MIN / 8388608};
    kernels_sweep(&f);
    kernels_log(special);
    CHECK(special[0] == -INFINITY && special[1] == -INFINITY && special[2] == INFINITY);
    CHECK(special[3] != special[3] && special[4] != special[4] && special[5] == 0);
    CHECK(special[6] != special[6] && fabsf(special[7] + 103.27893f) < 1e-5f);
}

static void test_tanh_all(void) {
    static const kernels_function f = {"tanh", kernels_tanh, tanh, 2, 0};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 20, -20, 1e-40f};
    kernels_sweep(&f);
    kernels_tanh(special);
    CHECK(dp__f32_bits(special[0]) == 0 && dp__f32_bits(special[1]) == 0x80000000u);
    CHECK(special[2] == 1 && special[3] == -1 && special[4] != special[4]);
    CHECK(special[5] == 1 && special[6] == -1 && special[7] == 1e-40f);
}

static void test_erf_all(void) {
    static const kernels_function f = {"erf", kernels_erf, erf, 2, 0};
    float special[8] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 6, -6, 1e-40f};
    kernels_sweep(&f);
    kernels_erf(special);
    CHECK(dp__f32_bits(special[0]) == 0 && dp__f32_bits(special[1]) == 0x80000000u);
    CHECK(special[2] == 1 && special[3] == -1 && special[4] != special[4]);
    CHECK(special[5] == 1 && special[6] == -1);
}


/* ---- element-wise work: every row against the scalar row ------------------------------------ */

#define KERNELS_BYTES 131072u /* of a region */

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
    if (c->special && test_rnd(s) % 4 == 0) return dp__bits_f32(odd[test_rnd(s) % 10]);
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
    c->count = (n + DP__COLUMNS - 1) / DP__COLUMNS;
}

/* Operations on rows; tables have 4 rows. */
static void kernels_fill_rows(kernels_case *c, size_t rows, size_t n, size_t gap, uint64_t *s) {
    dp__vec *v = &c->v;
    size_t   place = v->op == DP__VEC_GATHER ? 4 : rows;
    v->n = n;
    v->ldx = v->op == DP__VEC_GATHER ? n : n + gap;
    v->ldz = n + gap / 2;
    v->ldy = n + gap / 3;
    v->x = kernels_floats(c, KERNELS_X, kernels_extent(place, v->ldx, n), s);
    v->z = kernels_floats(c, KERNELS_Z, kernels_extent(rows > 4 ? rows : 4, v->ldz, n), s);
    v->y = kernels_floats(c, KERNELS_Y, kernels_extent(rows, v->ldy, n), s);
    v->w = kernels_floats(c, KERNELS_W, v->op == DP__VEC_GATHER ? 4 * n : n, s);
    v->b = kernels_floats(c, KERNELS_B, n, s);
    v->s = kernels_floats(c, KERNELS_S, rows, s);
    v->t = kernels_floats(c, KERNELS_T, rows, s);
    v->ids = kernels_ints(c, KERNELS_IDS, rows, (int32_t)(n < 4 ? n : 4), s);
    v->at = kernels_ints(c, KERNELS_AT, rows, 4, s);
    v->types = kernels_ints(c, KERNELS_TYPES, rows, 4, s);
    v->doc = (const uint32_t *)kernels_ints(c, KERNELS_DOC, rows, 1 << 30, s);
    v->ldq = n + gap;
    if (v->op == DP__VEC_QUANTIZE) v->ldz = n + gap;
    v->q = (uint8_t *)kernels_place(c, KERNELS_Q, 'b', rows * v->ldq);
    memset(v->q, 7, rows * v->ldq);
    if (gap & 1 && v->op == DP__VEC_DROPOUT) v->z = NULL;
    c->count = rows;
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
    if (op >= DP__VEC_COLUMN_SUMS) kernels_fill_columns(c, 1 + seed % 9, n, gap, &s);
    else if (op >= DP__VEC_ADAM && op <= DP__VEC_FINITE)
        kernels_fill_flat(c, n, &s);
    else kernels_fill_rows(c, 1 + seed % 4, n, gap, &s);
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

/* The instances of this build that run here. NULL and a note where not. */
static kernels_vec *kernels_instance(int i, const char **name) {
    uint32_t cpu = dp__cpu_bits();
    *name = i == 0 ? "scalar" : i == 1 ? "avx2" : "avx512";
    if (i == 0) return dp__vec_scalar;
#ifdef DP__AVX2
    if (i == 1 && cpu & DP__CPU_AVX2) return dp__vec_avx2;
#endif
#ifdef DP__AVX512
    if (i == 2 && cpu & DP__CPU_AVX512F && cpu & DP__CPU_AVX512VL) return dp__vec_avx512;
#endif
    (void)cpu;
    return NULL;
}

static unsigned char kernels_image[2][KERNELS_REGIONS * KERNELS_BYTES + 8];

/* Runs a case on the scalar row, in one piece, and on another, in two; flip >= 0 damages one bit
 * of the second result. Returns 1 if both are equal. */
static int kernels_equal(kernels_vec *run, int op, size_t n, uint64_t seed, int front, int special,
                         int flip) {
    kernels_case c;
    kernels_fill(&c, op, n, seed, front, special);
    dp__vec_scalar(&c.v, 0, c.count);
    kernels_snapshot(&c, kernels_image[0]);
    kernels_fill(&c, op, n, seed, front, special);
    run(&c.v, 0, c.count / 2);
    run(&c.v, c.count / 2, c.count);
    if (flip >= 0 && op == DP__VEC_QUANTIZE) c.v.q[n / 2] ^= 1;
    else if (flip >= 0 && op == DP__VEC_NORM) memset(c.v.sums, 1, 1);
    else if (flip >= 0 && op == DP__VEC_FINITE) c.flag ^= 1;
    else if (flip >= 0 && op == DP__VEC_LAYERNORM_PARAMS)
        ((uint32_t *)(void *)c.v.t)[n / 2] ^= 1u << flip;
    else if (flip >= 0) ((uint32_t *)(void *)c.v.y)[n / 2] ^= 1u << flip;
    kernels_snapshot(&c, kernels_image[1]);
    return kernels_difference(kernels_image[0], kernels_image[1]) == SIZE_MAX;
}

#define KERNELS_OPS ((int)DP__VEC_SCATTER + 1)

/* All operations x lengths 1..65 and some long ones x strides x both guard pages x special
 * values, on every instance. */
static void test_vec_rows_equal(void) {
    static const size_t longer[] = {127, 128, 129, 768, 1000, 3072};
    const char *name;
    for (int i = 0; i < 3; i++) {
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
                    CHECK(!"equal to the scalar row");
                }
            }
        }
        printf("     %s: %zu cases of %d operations, %zu differ\n", name, cases, KERNELS_OPS,
               wrong);
        CHECK(cases > 0);
    }
}

/* The comparison above must see one wrong bit of any operation on any row. */
static void test_vec_flip_is_seen(void) {
    const char *name;
    for (int i = 0; i < 3; i++) {
        kernels_vec *run = kernels_instance(i, &name);
        if (run == NULL) continue;
        for (int op = 0; op < KERNELS_OPS; op++) {
            CHECK(kernels_equal(run, op, 37, 3, 0, 0, -1));
            CHECK(!kernels_equal(run, op, 37, 3, 0, 0, 0));
            CHECK(!kernels_equal(run, op, 37, 3, 0, 0, 23));
        }
    }
}

static const test tests_kernels[] = {
    {"format_f16", test_format_f16},
    {"format_bf16", test_format_bf16},
    {"format_round", test_format_round},
    {"exp_all", test_exp_all},
    {"log_all", test_log_all},
    {"tanh_all", test_tanh_all},
    {"erf_all", test_erf_all},
    {"vec_rows_equal", test_vec_rows_equal},
    {"vec_flip_is_seen", test_vec_flip_is_seen},
};
