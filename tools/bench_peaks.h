/* bench_peaks.h -- the limits of a machine: chains of independent multiply-adds in registers, one
 * function an instruction. Included by bench.c. */

enum { CHAIN_STEPS = 200000 };

static double chains_scalar(void) {
    float sum[8] = {0};
    for (int i = 0; i < CHAIN_STEPS / 16; i++)
        for (int j = 0; j < 8; j++) sum[j] = dp__fmaf(0.5f, (float)j, sum[j]);
    __asm__ __volatile__("" : : "m"(sum));
    return CHAIN_STEPS / 16 * 8 * 2.0;
}

static double chains_int_scalar(void) {
    int32_t sum[8] = {0}, x = 3;
    for (int i = 0; i < CHAIN_STEPS / 16; i++) {
        for (int j = 0; j < 8; j++) {
            __asm__ __volatile__("" : "+r"(x)); /* the product is computed each time */
            sum[j] += x * x;
        }
    }
    __asm__ __volatile__("" : : "m"(sum));
    return CHAIN_STEPS / 16 * 8 * 2.0;
}

/* A result that is wanted, so that no step towards it is left out. */
#define KEEP(x) __asm__ __volatile__("" : : "v"(x))

#ifdef DP__AVX2
DP__TARGET("avx2,fma") static double chains_f32_avx2(void) {
    __m256 sum[12], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
    DP__UNROLL for (int j = 0; j < 12; j++) sum[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm256_fmadd_ps(x, y, sum[j]);
        DP__UNROLL for (int j = 8; j < 12; j++) sum[j] = _mm256_fmadd_ps(x, y, sum[j]);
        __asm__ __volatile__("" : "+x"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) KEEP(sum[j]);
    DP__UNROLL for (int j = 8; j < 12; j++) KEEP(sum[j]);
    return (double)CHAIN_STEPS * 12.0 * 8 * 2;
}

/* The exact route without VNNI: a vpmaddwd and a vpaddd for 16 products. */
DP__TARGET("avx2,fma") static double chains_s16_avx2(void) {
    __m256i sum[8], x = _mm256_set1_epi16(3), y = _mm256_set1_epi16(5);
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm256_set1_epi32(j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) {
            __asm__ __volatile__("" : "+x"(x)); /* the product is computed each time */
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(x, y));
        }
    }
    DP__UNROLL for (int j = 0; j < 8; j++) KEEP(sum[j]);
    return (double)CHAIN_STEPS * 8.0 * 16 * 2;
}

/* Latency 5, two a cycle: ten sums or more. */
DP__TARGET("avx2,fma") static double chains_int8_avxvnni(void) {
    __m256i sum[12], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5);
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm256_set1_epi32(j);
    DP__UNROLL for (int j = 8; j < 12; j++) sum[j] = _mm256_set1_epi32(j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) DP__DPBUSD_YMM(sum[j], x, y);
        DP__UNROLL for (int j = 8; j < 12; j++) DP__DPBUSD_YMM(sum[j], x, y);
        __asm__ __volatile__("" : "+x"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) KEEP(sum[j]);
    DP__UNROLL for (int j = 8; j < 12; j++) KEEP(sum[j]);
    return (double)CHAIN_STEPS * 12.0 * 32 * 2;
}
#endif

#ifdef DP__AVX512
DP__TARGET(DP__AVX512_NEEDS) static double chains_f32_avx512(void) {
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
    DP__UNROLL for (int j = 0; j < 8; j++) {
        KEEP(sum[j]);
        KEEP(sum[8 + j]);
    }
    return (double)CHAIN_STEPS * 16.0 * 16 * 2;
}

/* The exact route without VNNI, as above. */
DP__TARGET(DP__AVX512_NEEDS) static double chains_s16_avx512(void) {
    __m512i sum[8], x = _mm512_set1_epi16(3), y = _mm512_set1_epi16(5);
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = _mm512_set1_epi32(j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) {
            __asm__ __volatile__("" : "+v"(x));
            sum[j] = _mm512_add_epi32(sum[j], _mm512_madd_epi16(x, y));
        }
    }
    DP__UNROLL for (int j = 0; j < 8; j++) KEEP(sum[j]);
    return (double)CHAIN_STEPS * 8.0 * 32 * 2;
}

DP__TARGET(DP__AVX512_NEEDS) static double chains_bf16_dot(void) {
    __m512 sum[16], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
    DP__UNROLL for (int j = 0; j < 8; j++) sum[j] = sum[j + 8] = _mm512_set1_ps((float)j);
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) DP__DPBF16(sum[j], x, y);
        DP__UNROLL for (int j = 0; j < 8; j++) DP__DPBF16(sum[8 + j], x, y);
        __asm__ __volatile__("" : "+v"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) {
        KEEP(sum[j]);
        KEEP(sum[8 + j]);
    }
    return (double)CHAIN_STEPS * 16.0 * 32 * 2;
}

DP__TARGET(DP__VNNI_NEEDS) static double chains_int8_vnni(void) {
    __m512i sum[16], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    DP__UNROLL for (int j = 0; j < 8; j++) {
        sum[j] = _mm512_set1_epi32(j);
        sum[j + 8] = _mm512_set1_epi32(j + 8);
    }
    for (int i = 0; i < CHAIN_STEPS; i++) {
        DP__UNROLL for (int j = 0; j < 8; j++) DP__DPBUSD(sum[j], x, y);
        DP__UNROLL for (int j = 0; j < 8; j++) DP__DPBUSD(sum[8 + j], x, y);
        __asm__ __volatile__("" : "+v"(x));
    }
    DP__UNROLL for (int j = 0; j < 8; j++) {
        KEEP(sum[j]);
        KEEP(sum[8 + j]);
    }
    return (double)CHAIN_STEPS * 16.0 * 64 * 2;
}
#endif

#ifdef DP__AMX
/* Six tiles of sums from two of factors, whose bytes are 3: a product starts every 16 cycles. */
static void chains_tiles(int bf16) {
    uint8_t factors[2 * DP__IMAGE_BYTES];
    memset(factors, 3, sizeof factors);
    dp__tile_config_amx(1);
    DP__TILE_LOAD(6, factors, DP__TILE_BYTES);
    DP__TILE_LOAD(7, factors, DP__TILE_BYTES);
    for (int i = 0; i < CHAIN_STEPS / 16; i++) {
        DP__TILE_DOT(0, 6, 7);
        DP__TILE_DOT(1, 6, 7);
        DP__TILE_DOT(2, 6, 7);
        DP__TILE_DOT(3, 6, 7);
        DP__TILE_DOT(4, 6, 7);
        DP__TILE_DOT(5, 6, 7);
    }
    dp__tile_config_amx(0);
}

static double chains_int8_amx(void) {
    chains_tiles(0);
    return CHAIN_STEPS / 16 * 6.0 * 16 * 16 * 64 * 2;
}

static double chains_bf16_amx(void) {
    chains_tiles(1);
    return CHAIN_STEPS / 16 * 6.0 * 16 * 16 * 32 * 2;
}
#endif

/* run: operations done by one thread. */
typedef struct chain {
    const char *name;
    double (*run)(void);
} chain;

/* The limit of a kernel row for one number format. Where bf16 is widened it is that of float32. */
static chain chain_of(const dp__row *row, bench_limit limit) {
    static const chain scalar = {"fma", chains_scalar}, integer = {"imul", chains_int_scalar};
    (void)row; /* builds without vectors have one */
#ifdef DP__AMX
    static const chain int8_amx = {"tdpbusd", chains_int8_amx};
    static const chain bf16_amx = {"tdpbf16ps", chains_bf16_amx};
    if (limit == LIMIT_INT8 && row->i8[DP_WEIGHTS_FULL].tile_mode != NULL) return int8_amx;
    if (limit == LIMIT_BF16 && row->b16.tile_mode != NULL) return bf16_amx;
#endif
#ifdef DP__AVX512
    static const chain f32_avx512 = {"fma zmm", chains_f32_avx512};
    static const chain s16_avx512 = {"pmaddwd zmm", chains_s16_avx512};
    static const chain bf16_dot = {"dpbf16ps zmm", chains_bf16_dot};
    static const chain vnni = {"dpbusd zmm", chains_int8_vnni};
    if (limit == LIMIT_INT8 && row->isa >= DP_ISA_AVX512_VNNI) return vnni;
    if (limit == LIMIT_INT8 && row->isa >= DP_ISA_AVX512) return s16_avx512;
    if (limit == LIMIT_BF16 && row->isa >= DP_ISA_AVX512 && row->b16.group == 2) return bf16_dot;
    if (row->isa >= DP_ISA_AVX512) return f32_avx512;
#endif
#ifdef DP__AVX2
    static const chain f32_avx2 = {"fma ymm", chains_f32_avx2};
    static const chain s16_avx2 = {"pmaddwd ymm", chains_s16_avx2};
    static const chain avxvnni = {"dpbusd ymm", chains_int8_avxvnni};
    if (limit == LIMIT_INT8 && row->isa == DP_ISA_AVX_VNNI) return avxvnni;
    if (row->isa >= DP_ISA_AVX2) return limit == LIMIT_INT8 ? s16_avx2 : f32_avx2;
#endif
    return limit == LIMIT_INT8 ? integer : scalar;
}

typedef struct chains {
    chain  chain;
    double each; /* operations of one thread */
} chains;

static void chains_task(void *arg, int32_t tid, int32_t threads) {
    chains *c = (chains *)arg;
    (void)threads;
    double each = c->chain.run();
    if (tid == 0) c->each = each;
}

/* Operations a second of chains on all threads for at least this long. */
static double window_of(const dp__exec *exec, chain limit, double least) {
    chains c = {limit, 0};
    double start = now(), end = start;
    int    runs = 0;
    do {
        dp__exec_run(exec, chains_task, &c);
        end = now();
        runs++;
    } while (end - start < least);
    return c.each * runs * exec->threads / (end - start);
}

/* Cycles a second: additions that wait for one another, one a cycle. Trap: the addend must be a
 * register; Golden Cove adds small constants while it renames, in no time. 0: no x86. */
static double clock_rate(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    enum { STEPS = 40000, ADDS = 8 };
    uint64_t sum = 0, one = 1;
    double   start = now();
    for (int i = 0; i < STEPS; i++)
        __asm__ __volatile__("add %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\t"
                             "add %1, %0\n\tadd %1, %0\n\tadd %1, %0\n\tadd %1, %0"
                             : "+r"(sum) : "r"(one));
    return (double)STEPS * (double)ADDS / (now() - start);
#else
    return 0;
#endif
}
