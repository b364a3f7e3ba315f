/* simd_shim.h -- the vector instructions as C, for tests/test_simde.c: SIMDe where it has them
 * (0.7.4), plain loops where it lacks them or where it would round twice. */
#ifndef DP_SIMD_SHIM_H
#define DP_SIMD_SHIM_H

#pragma GCC diagnostic ignored "-Wpsabi" /* 64-byte arguments of SIMDe */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <math.h>
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <string.h>

/* fmaf of the C library is exact; SIMDe without -mfma multiplies and adds. */
static inline simde__m512 shim_fmadd512(simde__m512 a, simde__m512 b, simde__m512 c) {
    float x[16], y[16], z[16];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(z, &c, sizeof z);
    for (int i = 0; i < 16; i++) z[i] = fmaf(x[i], y[i], z[i]);
    memcpy(&c, z, sizeof z);
    return c;
}

static inline simde__m256 shim_fmadd256(simde__m256 a, simde__m256 b, simde__m256 c) {
    float x[8], y[8], z[8];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(z, &c, sizeof z);
    for (int i = 0; i < 8; i++) z[i] = fmaf(x[i], y[i], z[i]);
    memcpy(&c, z, sizeof z);
    return c;
}

/* Masked loads and stores touch only the lanes of the mask, as the instructions do. */
static inline simde__m512 shim_maskz_loadu_ps(unsigned mask, const void *p) {
    float       lane[16] = {0};
    simde__m512 v;
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy(&lane[i], (const char *)p + 4 * i, 4);
    memcpy(&v, lane, sizeof lane);
    return v;
}

static inline simde__m512i shim_maskz_loadu_epi32(unsigned mask, const void *p) {
    simde__m512  f = shim_maskz_loadu_ps(mask, p);
    simde__m512i v;
    memcpy(&v, &f, sizeof v);
    return v;
}

static inline void shim_mask_storeu_ps(void *p, unsigned mask, simde__m512 v) {
    float lane[16];
    memcpy(lane, &v, sizeof lane);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy((char *)p + 4 * i, &lane[i], 4);
}

/* Clears signs; SIMDe compares with 0, which keeps those of -0 and NaN. */
static inline simde__m512 shim_abs_ps(simde__m512 a) {
    uint32_t x[16];
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++) x[i] &= 0x7FFFFFFFu;
    memcpy(&a, x, sizeof x);
    return a;
}

static inline simde__m512 shim_cvtepi32_ps(simde__m512i a) {
    int32_t     x[16];
    float       y[16];
    simde__m512 v;
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++) y[i] = (float)x[i];
    memcpy(&v, y, sizeof y);
    return v;
}

#define SHIM_REDUCE_MAX(name, vector, number)                                                    \
    static inline number name(vector a) {                                                        \
        number x[16], max;                                                                       \
        memcpy(x, &a, sizeof x);                                                                 \
        max = x[0];                                                                              \
        for (int i = 1; i < 16; i++) max = x[i] > max ? x[i] : max;                              \
        return max;                                                                              \
    }
SHIM_REDUCE_MAX(shim_reduce_max_epi32, simde__m512i, int32_t)
SHIM_REDUCE_MAX(shim_reduce_max_ps, simde__m512, float)

static inline simde__m256 shim_extractf32x8_ps(simde__m512 a, int part) {
    simde__m256 half;
    memcpy(&half, (char *)&a + part * (int)sizeof half, sizeof half);
    return half;
}

/* The tiles of AMX; a broken rule ends the test with its name. */
#include "tiles.h"
#include <stdio.h>
#include <stdlib.h>

static inline void shim_tile(const char *wrong) {
    if (wrong == NULL) return;
    fprintf(stderr, "a kernel breaks a rule of AMX: %s\n", wrong);
    abort();
}

#define DP__TILE_CONFIG(from) shim_tile(tile_config(from))
#define DP__TILE_RELEASE() shim_tile(tile_release())
#define DP__TILE_LOAD(t, from, stride) shim_tile(tile_load(t, from, (ptrdiff_t)(stride)))
#define DP__TILE_STREAM(t, from, stride) DP__TILE_LOAD(t, from, stride)
#define DP__TILE_STORE(t, to) shim_tile(tile_store(t, to, TILE_BYTES))
#define DP__TILE_U8S8(c, a, b) shim_tile(tile_dot8(c, a, b, 0, 1))
#define DP__TILE_BF16(c, a, b) shim_tile(tile_dot_bf16(c, a, b))

/* The n lowest bytes of every number. */
static inline void shim_narrow(void *to, simde__m512i a, size_t n) {
    char x[64];
    memcpy(x, &a, sizeof x);
    for (size_t i = 0; i < 16; i++) memcpy((char *)to + n * i, x + 4 * i, n);
}

static inline __m128i shim_cvtepi32_epi8(simde__m512i a) {
    __m128i v;
    shim_narrow(&v, a, 1);
    return v;
}

static inline simde__m256i shim_cvtepi32_epi16(simde__m512i a) {
    simde__m256i v;
    shim_narrow(&v, a, 2);
    return v;
}

/* VDPBF16PS as the manual has it: the odd elements first, each product fused, denormals 0 in every
 * operand and result. SIMDe converts and adds in another order. */
static inline simde__m512 shim_dpbf16_ps(simde__m512 sum, simde__m512 a, simde__m512 b) {
    uint32_t x[16], y[16], zero = 0;
    float    z[16], p, q;
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(z, &sum, sizeof z);
    for (int i = 0; i < 32; i++) {
        uint32_t u = i % 2 ? x[i / 2] << 16 : x[i / 2] & 0xFFFF0000u;
        uint32_t v = i % 2 ? y[i / 2] << 16 : y[i / 2] & 0xFFFF0000u;
        memcpy(&p, (u & 0x7F800000u) != 0 ? &u : &zero, sizeof p);
        memcpy(&q, (v & 0x7F800000u) != 0 ? &v : &zero, sizeof q);
        z[i / 2] = fmaf(p, q, z[i / 2]);
    }
    memcpy(&sum, z, sizeof z);
    return sum;
}

/* VCVTNEPS2BF16 as the manual has it: to nearest, ties to even; denormals 0, NaN made quiet. */
static inline simde__m256i shim_cvtneps_pbh(simde__m512 a) {
    uint32_t     x[16];
    uint16_t     half[16];
    simde__m256i to;
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < 16; i++) {
        uint32_t size = x[i] & 0x7FFFFFFFu;
        if (size < 0x00800000u) x[i] &= 0x80000000u;
        else if (size > 0x7F800000u) x[i] |= 0x00400000u;
        else x[i] += 0x7FFFu + (x[i] >> 16 & 1);
        half[i] = (uint16_t)(x[i] >> 16);
    }
    memcpy(&to, half, sizeof to);
    return to;
}

/* SIMDe's alias of 0.7.4 wants the arguments of the masked form. */
static inline simde__m512i shim_madd512(simde__m512i a, simde__m512i b) {
    int16_t x[32], y[32];
    int32_t z[16];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 16; i++) z[i] = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
    memcpy(&a, z, sizeof z);
    return a;
}

static inline void shim_mask_storeu_epi8(void *p, unsigned mask, __m128i v) {
    uint8_t x[16];
    memcpy(x, &v, sizeof x);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) ((uint8_t *)p)[i] = x[i];
}

#define __mmask16 simde__mmask16 /* no alias in 0.7.4 */
#undef _mm256_fmadd_ps
#undef _mm512_fmadd_ps
#undef _mm512_abs_ps
#undef _mm512_maskz_loadu_ps
#undef _mm512_maskz_loadu_epi32
#undef _mm512_mask_storeu_ps
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi32_epi8
#undef _mm512_cvtepi32_epi16
#undef _mm512_dpbf16_ps
#undef _mm512_cvtneps_pbh
#undef _mm512_madd_epi16
#undef _mm_mask_storeu_epi8
#define _mm256_fmadd_ps(a, b, c) shim_fmadd256(a, b, c)
#define _mm512_fmadd_ps(a, b, c) shim_fmadd512(a, b, c)
#define _mm512_abs_ps(a) shim_abs_ps(a)
#define _mm512_maskz_loadu_ps(mask, p) shim_maskz_loadu_ps(mask, p)
#define _mm512_maskz_loadu_epi32(mask, p) shim_maskz_loadu_epi32(mask, p)
#define _mm512_mask_storeu_ps(p, mask, v) shim_mask_storeu_ps(p, mask, v)
#define _mm512_cvtepi32_ps(a) shim_cvtepi32_ps(a)
#undef _mm512_reduce_max_epi32
#define _mm512_reduce_max_epi32(a) shim_reduce_max_epi32(a)
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps(a) shim_reduce_max_ps(a)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, part) shim_extractf32x8_ps(a, part)
#define _mm512_cvtepi32_epi8(a) shim_cvtepi32_epi8(a)
#define _mm512_cvtepi32_epi16(a) shim_cvtepi32_epi16(a)
#define _mm512_madd_epi16(a, b) shim_madd512(a, b)
#define _mm512_dpbf16_ps(sum, a, b) shim_dpbf16_ps(sum, a, b)
#define _mm512_cvtneps_pbh(a) shim_cvtneps_pbh(a)
#define _mm512_shuffle_i64x2(a, b, order) simde_mm512_shuffle_i64x2(a, b, order)
#define _mm_mask_storeu_epi8(p, mask, v) shim_mask_storeu_epi8(p, mask, v)

#endif
