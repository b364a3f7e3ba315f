/* bench.c -- how fast the library is on this machine, against the machine's own limit.
 *
 *   bench gemm|tokenize [--json] [--isa=NAME] [--threads=N] [--rows=N]
 *
 * Every case runs in 15 rounds, the cases interleaved. The limit ("peak") is the best of 5
 * windows of independent multiply-add chains on the same cores, spread over the same rounds.
 * share = work / best time / peak. */
#define _GNU_SOURCE 1
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 15, WINDOWS = 5, MAX_CASES = 64 };

typedef enum bench_limit { LIMIT_NONE, LIMIT_F32, LIMIT_INT8 } bench_limit;

typedef struct bench_case {
    char        name[48];
    const char *unit;   /* of work: "flop", "op", "byte", "run" */
    double      work;   /* in one run */
    bench_limit limit;
    void (*run)(void *arg);
    void  *arg;
    int    repeat; /* runs of one round */
    double seconds[ROUNDS];
} bench_case;

typedef struct bench {
    dp_env     env;
    dp__exec   exec;
    int        json;
    size_t     rows;
    double     peak[3]; /* operations per second, by bench_limit */
    bench_case cases[MAX_CASES];
    int        count;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
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

/* ---- the machine's limit -------------------------------------------------------------------- */

enum { CHAIN_STEPS = 200000 };

typedef struct chains {
    dp_isa      isa;
    bench_limit limit;
    float       sink[1024]; /* a result per thread, so that nothing is left out */
} chains;

static double chains_scalar(float *sink) {
    float sum[8] = {0};
    for (int i = 0; i < CHAIN_STEPS / 16; i++)
        for (int j = 0; j < 8; j++) sum[j] = dp__fmaf(0.5f, (float)j, sum[j]);
    for (int j = 0; j < 8; j++) *sink += sum[j];
    return CHAIN_STEPS / 16 * 8 * 2.0;
}

#ifdef DP__AVX2
DP__TARGET("avx2,fma") static double chains_f32_avx2(float *sink) {
    __m256 sum[12], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
    DP__UNROLL for (int j = 0; j < 12; j++) sum[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm256_fmadd_ps(x, y, sum[j]);
        DP__UNROLL for (int j = 8; j < 12; j++) sum[j] = _mm256_fmadd_ps(x, y, sum[j]);
        __asm__ __volatile__("" : "+x"(x));
    }
    DP__UNROLL for (int j = 1; j < 8; j++) sum[0] = _mm256_add_ps(sum[0], sum[j]);
    DP__UNROLL for (int j = 8; j < 12; j++) sum[0] = _mm256_add_ps(sum[0], sum[j]);
    float out[8];
    _mm256_storeu_ps(out, sum[0]);
    *sink += out[0];
    return CHAIN_STEPS * 12.0 * 8 * 2;
}

/* The exact route without VNNI: a vpmaddwd and a vpaddd for 16 products. */
DP__TARGET("avx2,fma") static double chains_s16_avx2(float *sink) {
    __m256i sum[8], x = _mm256_set1_epi16(3), y = _mm256_set1_epi16(5);
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm256_set1_epi32(j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) {
            __asm__ __volatile__("" : "+x"(x)); /* the product is computed each time */
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(x, y));
        }
    }
    DP__UNROLL for (int j = 1; j < 8; j++) sum[0] = _mm256_add_epi32(sum[0], sum[j]);
    int32_t out[8];
    _mm256_storeu_si256((__m256i *)(void *)out, sum[0]);
    *sink += (float)out[0];
    return CHAIN_STEPS * 8.0 * 16 * 2;
}
#endif

#ifdef DP__AVX512
DP__TARGET(DP__AVX512_NEEDS) static double chains_f32_avx512(float *sink) {
    __m512 sum[16], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
    DP__UNROLL for (int j = 0; j < 8; j++) {
        sum[j] = _mm512_set1_ps((float)j);
        sum[j + 8] = _mm512_set1_ps((float)(j + 8));
    }
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm512_fmadd_ps(x, y, sum[j]);
        DP__UNROLL for (int j = 0; j < 8; j++) sum[8 + j] = _mm512_fmadd_ps(x, y, sum[8 + j]);
        __asm__ __volatile__("" : "+v"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm512_add_ps(sum[j], sum[8 + j]);
    DP__UNROLL for (int j = 1; j < 8; j++) sum[0] = _mm512_add_ps(sum[0], sum[j]);
    float out[16];
    _mm512_storeu_ps(out, sum[0]);
    *sink += out[0];
    return CHAIN_STEPS * 16.0 * 16 * 2;
}

DP__TARGET(DP__VNNI_NEEDS) static double chains_int8_vnni(float *sink) {
    __m512i sum[16], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    DP__UNROLL for (int j = 0; j < 8; j++) {
        sum[j] = _mm512_set1_epi32(j);
        sum[j + 8] = _mm512_set1_epi32(j + 8);
    }
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm512_dpbusd_epi32(sum[j], x, y);
        DP__UNROLL for (int j = 0; j < 8; j++) sum[8 + j] = _mm512_dpbusd_epi32(sum[8 + j], x, y);
        __asm__ __volatile__("" : "+v"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm512_add_epi32(sum[j], sum[8 + j]);
    DP__UNROLL for (int j = 1; j < 8; j++) sum[0] = _mm512_add_epi32(sum[0], sum[j]);
    int32_t out[16];
    _mm512_storeu_si512((void *)out, sum[0]);
    *sink += (float)out[0];
    return CHAIN_STEPS * 16.0 * 64 * 2;
}
#endif

/* Operations done by one thread. */
static double chains_run(dp_isa isa, bench_limit limit, float *sink) {
#ifdef DP__AVX512
    if (isa == DP_ISA_AVX512_VNNI && limit == LIMIT_INT8) return chains_int8_vnni(sink);
    if (isa >= DP_ISA_AVX512 && limit == LIMIT_F32) return chains_f32_avx512(sink);
#endif
#ifdef DP__AVX2
    if (isa >= DP_ISA_AVX2)
        return limit == LIMIT_F32 ? chains_f32_avx2(sink) : chains_s16_avx2(sink);
#endif
    return chains_scalar(sink);
}

static void chains_task(void *arg, int32_t tid, int32_t threads) {
    chains *c = (chains *)arg;
    (void)threads;
    chains_run(c->isa, c->limit, &c->sink[tid]);
}

static void window(bench *b, bench_limit limit) {
    static chains c;
    float         sink = 0;
    c.isa = b->exec.row->isa;
    c.limit = limit;
    double each = chains_run(c.isa, limit, &sink); /* warm, and the count */
    double start = now();
    dp__exec_run(&b->exec, chains_task, &c);
    double rate = each * b->exec.threads / (now() - start);
    if (rate > b->peak[limit]) b->peak[limit] = rate;
}

/* ---- rounds and report ---------------------------------------------------------------------- */

static bench_case *add(bench *b, const char *name, const char *unit, double work,
                       bench_limit limit, void (*run)(void *), void *arg) {
    bench_case *c = &b->cases[b->count++];
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

static void run_rounds(bench *b, double least) {
    for (int i = 0; i < b->count; i++) { /* warm up; enough runs for a round */
        bench_case *c = &b->cases[i];
        c->run(c->arg);
        double start = now();
        c->run(c->arg);
        double once = now() - start;
        c->repeat = once > 0 && once < least ? (int)(least / once) + 1 : 1;
    }
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < b->count; i++) {
            bench_case *c = &b->cases[i];
            double      start = now();
            for (int n = 0; n < c->repeat; n++) c->run(c->arg);
            c->seconds[r] = (now() - start) / c->repeat;
            if (r % (ROUNDS / WINDOWS) == 0 && c->limit != LIMIT_NONE) window(b, c->limit);
        }
    }
    for (int i = 0; i < b->count; i++)
        qsort(b->cases[i].seconds, ROUNDS, sizeof(double), by_value);
}

static void line(const bench *b, const char *name, const char *unit, double median, double min,
                 double work, double peak) {
    double share = peak > 0 ? work / min / peak : 0;
    if (b->json) {
        printf("{\"case\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"median\":%.6g,\"min\":%.6g,"
               "\"work\":%.6g,\"unit\":\"%s\",\"peak\":%.6g,\"share\":%.4f}\n",
               name, b->exec.row->name, (int)b->exec.threads, median, min, work, unit, peak, share);
        return;
    }
    printf("%-28s %-11s %2d thr  median %9.3f ms  min %9.3f ms", name, b->exec.row->name,
           (int)b->exec.threads, median * 1e3, min * 1e3);
    if (peak > 0) printf("  %8.1f G%s/s  peak %8.1f  share %5.1f %%", work / min * 1e-9, unit,
                         peak * 1e-9, share * 100);
    else if (work > 0) printf("  %10.4g %s/s", work / min, unit);
    printf("\n");
}

/* Prints all cases, and the mean of those with a limit weighted by work. */
static void report(const bench *b, const char *mean) {
    double work = 0, median = 0, min = 0, peak = 0;
    for (int i = 0; i < b->count; i++) {
        const bench_case *c = &b->cases[i];
        line(b, c->name, c->unit, c->seconds[ROUNDS / 2], c->seconds[0], c->work,
             b->peak[c->limit]);
        work += c->work;
        median += c->seconds[ROUNDS / 2];
        min += c->seconds[0];
        peak = b->peak[c->limit];
    }
    if (mean != NULL) line(b, mean, b->cases[0].unit, median, min, work, peak);
}

/* ---- gemm: the four products of a BERT-base layer ------------------------------------------- */

static const struct {
    const char *name;
    size_t      n, k;
} shapes[] = {{"qkv", 2304, 768}, {"out", 768, 768}, {"ffn1", 3072, 768}, {"ffn2", 768, 3072}};

typedef struct product {
    const bench *b;
    dp__mm       mm;
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

/* Rows 16 floats longer than they are wide: a stride of 4,096 bytes would use one cache set. */
static void bench_gemm(bench *b, size_t m) {
    static product products[4];
    for (int i = 0; i < 4; i++) {
        product *p = &products[i];
        size_t   n = shapes[i].n, k = shapes[i].k;
        float   *a = (float *)get(m * (k + 16) * 4), *w = (float *)get(n * k * 4);
        float   *packed = (float *)get(dp__pack_size(n, k) * 4), *bias = (float *)get(n * 4);
        char     name[48];
        fill(a, m * (k + 16));
        fill(w, n * k);
        dp__pack_nk(packed, w, k, n, k);
        memset(p, 0, sizeof *p);
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
        snprintf(name, sizeof name, "gemm %s %ux%ux%u", shapes[i].name, (unsigned)m, (unsigned)n,
                 (unsigned)k);
        add(b, name, "flop", 2.0 * (double)m * (double)n * (double)k, LIMIT_F32, run_product, p);
    }
    run_rounds(b, 0.01);
    report(b, "gemm mean");
}

#include "bench_tokenize.h"

/* ---- command line --------------------------------------------------------------------------- */

static dp_isa isa_of(const char *name) {
    for (size_t i = 0; i < DP__ROWS; i++)
        if (strcmp(dp__rows[i].name, name) == 0) return dp__rows[i].isa;
    die("unknown --isa");
    return DP_ISA_AUTO;
}

int main(int argc, char **argv) {
    static bench b;
    dp_error     err;
    DP_CLEAR(b.env);
    b.env.alloc.alloc = dp__default_alloc;
    b.env.alloc.free = dp__default_free;
    b.env.threads = 1;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) b.json = 1;
        else if (strncmp(argv[i], "--isa=", 6) == 0) b.env.isa_cap = isa_of(argv[i] + 6);
        else if (strncmp(argv[i], "--threads=", 10) == 0) b.env.threads = atoi(argv[i] + 10);
        else if (strncmp(argv[i], "--rows=", 7) == 0) b.rows = (size_t)atoi(argv[i] + 7);
        else die("unknown option");
    }
    if (dp__exec_open(&b.exec, &b.env, &err) != DP_OK) die(err.text);
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "gemm") == 0) {
        bench_gemm(&b, b.rows ? b.rows : 512);
        b.count = 0;
        if (b.rows == 0) bench_gemm(&b, 64);
    } else if (strcmp(what, "tokenize") == 0) {
        bench_tokenize(&b);
    } else {
        die("usage: bench gemm|tokenize [--json] [--isa=NAME] [--threads=N] [--rows=N]");
    }
    dp__exec_close(&b.exec);
    return 0;
}
