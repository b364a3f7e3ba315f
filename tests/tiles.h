/* tiles.h -- what the AMX instructions do, as C (Intel SDM volume 2, LDTILECFG to TDPBF16PS): each
 * function performs one instruction for the calling thread, or returns the rule that it breaks.
 * tests/simd_shim.h puts them in place of the instructions, tests/test_amx.c behind their
 * encodings. */
#ifndef DP_TEST_TILES_H
#define DP_TEST_TILES_H
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64 };

typedef struct tile_state {
    int      configured;
    uint32_t start_row, rows[TILES], bytes[TILES]; /* bytes of a row */
    uint8_t  data[TILES][TILE_ROWS][TILE_BYTES];
} tile_state;

static __thread tile_state the_tiles;

static const char *tile_release(void) {
    memset(&the_tiles, 0, sizeof the_tiles);
    return NULL;
}

static const char *tile_config(const void *from) {
    const uint8_t *p = (const uint8_t *)from;
    tile_state     next;
    memset(&next, 0, sizeof next);
    if (p[0] == 0) return tile_release();
    if (p[0] > 1) return "#GP: a palette above 1";
    for (int i = 2; i < TILE_BYTES; i++)
        if ((i < 16 || (i >= 32 && i < 48) || i >= 56) && p[i] != 0) return "#GP: a reserved byte";
    for (int t = 0; t < TILES; t++) {
        next.bytes[t] = (uint32_t)p[16 + 2 * t] | (uint32_t)p[17 + 2 * t] << 8;
        next.rows[t] = p[48 + t];
        if (next.bytes[t] > TILE_BYTES) return "#GP: more than 64 bytes a row";
        if (next.rows[t] > TILE_ROWS) return "#GP: more than 16 rows";
        if ((next.rows[t] == 0) != (next.bytes[t] == 0)) return "#GP: rows or bytes alone are 0";
    }
    next.configured = 1;
    next.start_row = p[1];
    the_tiles = next;
    return NULL;
}

static const char *tile_config_store(void *to) {
    uint8_t *p = (uint8_t *)to;
    memset(p, 0, TILE_BYTES);
    if (!the_tiles.configured) return NULL;
    p[0] = 1;
    p[1] = (uint8_t)the_tiles.start_row;
    for (int t = 0; t < TILES; t++) {
        p[16 + 2 * t] = (uint8_t)the_tiles.bytes[t];
        p[48 + t] = (uint8_t)the_tiles.rows[t];
    }
    return NULL;
}

static const char *tile_usable(int t) {
    if (!the_tiles.configured) return "#UD: tiles are not configured";
    if (the_tiles.rows[t] == 0) return "#UD: a tile without rows";
    return NULL;
}

static const char *tile_movable(int t) {
    const char *wrong = tile_usable(t);
    if (wrong != NULL) return wrong;
    if (the_tiles.bytes[t] % 4 != 0) return "#UD: bytes of a row are no multiple of 4";
    if (the_tiles.start_row >= the_tiles.rows[t]) return "#UD: start_row beyond the rows";
    return NULL;
}

static const char *tile_zero(int t) {
    const char *wrong = tile_usable(t);
    if (wrong != NULL) return wrong;
    memset(the_tiles.data[t], 0, sizeof the_tiles.data[t]);
    the_tiles.start_row = 0;
    return NULL;
}

static const char *tile_load(int t, const void *from, ptrdiff_t stride) {
    const char *wrong = tile_movable(t), *p = (const char *)from;
    if (wrong != NULL) return wrong;
    for (uint32_t r = the_tiles.start_row; r < TILE_ROWS; r++) {
        memset(the_tiles.data[t][r], 0, TILE_BYTES);
        if (r < the_tiles.rows[t])
            memcpy(the_tiles.data[t][r], p + (ptrdiff_t)r * stride, the_tiles.bytes[t]);
    }
    the_tiles.start_row = 0;
    return NULL;
}

static const char *tile_store(int t, void *to, ptrdiff_t stride) {
    const char *wrong = tile_movable(t);
    if (wrong != NULL) return wrong;
    for (uint32_t r = the_tiles.start_row; r < the_tiles.rows[t]; r++)
        memcpy((char *)to + (ptrdiff_t)r * stride, the_tiles.data[t][r], the_tiles.bytes[t]);
    the_tiles.start_row = 0;
    return NULL;
}

/* What every product demands of its three the_tiles. */
static const char *tile_product(int c, int a, int b) {
    const char *wrong = tile_usable(c);
    if (wrong == NULL) wrong = tile_usable(a);
    if (wrong == NULL) wrong = tile_usable(b);
    if (wrong != NULL) return wrong;
    if (c == a || c == b || a == b) return "#UD: two of the three tiles are one";
    if (the_tiles.bytes[c] % 4 != 0 || the_tiles.bytes[a] % 4 != 0 || the_tiles.bytes[b] % 4 != 0)
        return "#UD: bytes of a row are no multiple of 4";
    if (the_tiles.bytes[c] != the_tiles.bytes[b]) return "#UD: c and b differ in columns";
    if (the_tiles.rows[c] != the_tiles.rows[a]) return "#UD: c and a differ in rows";
    if (the_tiles.bytes[a] / 4 != the_tiles.rows[b]) return "#UD: a's columns are not b's rows";
    the_tiles.start_row = 0;
    return NULL;
}

static void tile_clear_rest(int c) {
    for (uint32_t r = 0; r < TILE_ROWS; r++) {
        uint32_t keep = r < the_tiles.rows[c] ? the_tiles.bytes[c] : 0;
        memset(the_tiles.data[c][r] + keep, 0, TILE_BYTES - keep);
    }
}

static int32_t tile_byte(uint8_t byte, int is_signed) {
    return is_signed ? (int32_t)byte - (byte > 127 ? 256 : 0) : (int32_t)byte;
}

/* TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD: c[m, n] += sums of four products, modulo 2^32. */
static const char *tile_dot8(int c, int a, int b, int a_signed, int b_signed) {
    const char *wrong = tile_product(c, a, b);
    if (wrong != NULL) return wrong;
    for (uint32_t m = 0; m < the_tiles.rows[c]; m++) {
        for (uint32_t n = 0; n < the_tiles.bytes[c] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, the_tiles.data[c][m] + 4 * n, 4);
            for (uint32_t k = 0; k < the_tiles.rows[b]; k++)
                for (uint32_t i = 0; i < 4; i++)
                    sum += (uint32_t)(tile_byte(the_tiles.data[a][m][4 * k + i], a_signed) *
                                      tile_byte(the_tiles.data[b][k][4 * n + i], b_signed));
            memcpy(the_tiles.data[c][m] + 4 * n, &sum, 4);
        }
    }
    tile_clear_rest(c);
    return NULL;
}

/* Denormals are 0 on the way in and out; the sign stays. */
static float tile_flush(float x) {
    return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x;
}

static float tile_bf16(const uint8_t *p) {
    uint32_t u = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float    x;
    memcpy(&x, &u, 4);
    return tile_flush(x);
}

/* TDPBF16PS: a chain of the even products from 0, a chain of the odd ones, their sum onto c. */
static const char *tile_dot_bf16(int c, int a, int b) {
    const char *wrong = tile_product(c, a, b);
    if (wrong != NULL) return wrong;
    for (uint32_t m = 0; m < the_tiles.rows[c]; m++) {
        for (uint32_t n = 0; n < the_tiles.bytes[c] / 4; n++) {
            float chain[2] = {0, 0}, sum;
            for (uint32_t k = 0; k < the_tiles.rows[b]; k++)
                for (uint32_t i = 0; i < 2; i++)
                    chain[i] = tile_flush(fmaf(tile_bf16(the_tiles.data[a][m] + 4 * k + 2 * i),
                                               tile_bf16(the_tiles.data[b][k] + 4 * n + 2 * i),
                                               chain[i]));
            memcpy(&sum, the_tiles.data[c][m] + 4 * n, 4);
            sum = tile_flush(tile_flush(sum) + tile_flush(chain[0] + chain[1]));
            memcpy(the_tiles.data[c][m] + 4 * n, &sum, 4);
        }
    }
    tile_clear_rest(c);
    return NULL;
}
#endif
