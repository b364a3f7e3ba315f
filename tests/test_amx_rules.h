/* test_amx_rules.h -- tests of tests/emulator.h for tests/test_amx.c: the examples of encodings,
 * the order of TDPBF16PS, one wrong kernel for each rule; and, on a processor with AMX, the same
 * instructions without ud2, whose verdict and whose bits must be the emulator's. */
#include "emulator.h"

#if defined(DP__AMX) && !defined(DP__SOFTWARE)
typedef struct amx_setup {
    uint8_t config[64];
    char    data[4][1024];
} amx_setup;

static amx_setup amx; /* what the pieces of code below read and write */

/* Tiles with rows[t] rows of bytes[t] bytes; the last value holds for the rest. */
static void amx_shape(int rows, int bytes) {
    memset(amx.config, 0, sizeof amx.config);
    amx.config[0] = 1;
    for (int t = 0; t < 8; t++) {
        amx.config[16 + 2 * t] = (uint8_t)bytes;
        amx.config[48 + t] = (uint8_t)rows;
    }
}

#define AMX_OPERANDS                                                                             \
    : : "S"(&amx.config), "d"(amx.data), "c"((size_t)64), "D"(0) : "memory", "rax", "r8", "r12"
/* A piece of code twice: trapped at each step (T stands before every instruction), and bare. */
#define AMX_CODE(name, code)                                                                     \
    static void name##_trapped(void) {                                                           \
        __asm__ __volatile__(".macro T\n\tud2\n\t.endm\n\t" code "\n\t.purgem T" AMX_OPERANDS);  \
    }                                                                                            \
    static void name##_bare(void) {                                                              \
        __asm__ __volatile__(".macro T\n\t.endm\n\t" code "\n\t.purgem T" AMX_OPERANDS);         \
    }
#define AMX_CONFIG "T\n\tldtilecfg (%%rsi)\n\t"
#define AMX_BYTES(bytes) AMX_CONFIG "T\n\t.byte " bytes

AMX_CODE(amx_config, "T\n\tldtilecfg (%%rsi)")
AMX_CODE(amx_release, "T\n\ttilerelease")
AMX_CODE(amx_zero0, AMX_CONFIG "T\n\ttilezero %%tmm0")
AMX_CODE(amx_zero7, AMX_CONFIG "T\n\ttilezero %%tmm7")
AMX_CODE(amx_unset, "T\n\ttilerelease\n\tT\n\ttilezero %%tmm0")
AMX_CODE(amx_load, AMX_CONFIG "T\n\ttileloadd (%%rdx,%%rcx,1), %%tmm1")
AMX_CODE(amx_save, AMX_CONFIG "T\n\ttilestored %%tmm1, (%%rdx,%%rcx,1)")
AMX_CODE(amx_dot, AMX_CONFIG "T\n\ttdpbusd %%tmm2, %%tmm1, %%tmm0")
AMX_CODE(amx_same_ab, AMX_BYTES("0xC4, 0xE2, 0x71, 0x5E, 0xC1"))
AMX_CODE(amx_same_ca, AMX_BYTES("0xC4, 0xE2, 0x69, 0x5E, 0xC0"))
AMX_CODE(amx_same_cb, AMX_BYTES("0xC4, 0xE2, 0x79, 0x5E, 0xC1"))
AMX_CODE(amx_vex_w, AMX_BYTES("0xC4, 0xE2, 0xFB, 0x49, 0xC0"))
AMX_CODE(amx_vex_l, AMX_BYTES("0xC4, 0xE2, 0x7F, 0x49, 0xC0"))
AMX_CODE(amx_vvvv, AMX_BYTES("0xC4, 0xE2, 0x73, 0x49, 0xC0"))
AMX_CODE(amx_prefix, AMX_BYTES("0x66, 0xC4, 0xE2, 0x7B, 0x49, 0xC0"))
AMX_CODE(amx_lock, AMX_BYTES("0xF0, 0xC4, 0xE2, 0x7B, 0x49, 0xC0"))
AMX_CODE(amx_no_sib, AMX_BYTES("0xC4, 0xE2, 0x7B, 0x4B, 0x0A"))
AMX_CODE(amx_tile8, AMX_BYTES("0xC4, 0x62, 0x7B, 0x49, 0xC0"))
AMX_CODE(amx_tile_b, AMX_BYTES("0xC4, 0xE2, 0x09, 0x5E, 0xC4"))

/* The rule that a piece breaks, or NULL. */
static const char *amx_verdict(void (*run)(void)) {
    emulator_broken = NULL;
    emulator_expects = 1;
    if (sigsetjmp(emulator_back, 1) == 0) run();
    emulator_expects = 0;
    return emulator_broken;
}

static int amx_native(void) {
    return dp__row_missing(DP_ISA_AMX, dp__cpu_bits(), dp__os_bits()) == NULL;
}

/* Changes one byte of a configuration of full tiles (at 0: rows and bytes as given). */
static const struct {
    const char *rule;
    void (*trapped)(void), (*bare)(void);
    int at, value, rows, bytes;
} amx_rules[] = {
#define AMX_RULE(rule, name, at, value, rows, bytes)                                             \
    {rule, name##_trapped, name##_bare, at, value, rows, bytes}
    AMX_RULE("#GP: a palette above 1", amx_config, 0, 2, 16, 64),
    AMX_RULE("#GP: a reserved byte", amx_config, 2, 1, 16, 64),
    AMX_RULE("#GP: a reserved byte", amx_config, 15, 1, 16, 64),
    AMX_RULE("#GP: a reserved byte", amx_config, 40, 1, 16, 64),
    AMX_RULE("#GP: a reserved byte", amx_config, 63, 1, 16, 64),
    AMX_RULE("#GP: more than 64 bytes a row", amx_config, 18, 65, 16, 64),
    AMX_RULE("#GP: more than 64 bytes a row", amx_config, 19, 1, 16, 64),
    AMX_RULE("#GP: more than 16 rows", amx_config, 50, 17, 16, 64),
    AMX_RULE("#GP: rows or bytes alone are 0", amx_config, 48, 0, 16, 64),
    AMX_RULE("#GP: rows or bytes alone are 0", amx_config, 16, 0, 16, 64),
    AMX_RULE("#UD: tiles are not configured", amx_unset, 0, 1, 16, 64),
    AMX_RULE("#UD: a tile without rows", amx_zero7, 0, 1, 0, 0),
    AMX_RULE("#UD: bytes of a row are no multiple of 4", amx_load, 18, 62, 16, 64),
    AMX_RULE("#UD: bytes of a row are no multiple of 4", amx_save, 18, 62, 16, 64),
    AMX_RULE("#UD: bytes of a row are no multiple of 4", amx_dot, 18, 62, 16, 64),
    AMX_RULE("#UD: start_row beyond the rows", amx_load, 1, 16, 16, 64),
    AMX_RULE("#UD: start_row beyond the rows", amx_save, 1, 16, 16, 64),
    AMX_RULE("#UD: two of the three tiles are one", amx_same_ab, 0, 1, 16, 64),
    AMX_RULE("#UD: two of the three tiles are one", amx_same_ca, 0, 1, 16, 64),
    AMX_RULE("#UD: two of the three tiles are one", amx_same_cb, 0, 1, 16, 64),
    AMX_RULE("#UD: c and b differ in columns", amx_dot, 16, 32, 16, 64),
    AMX_RULE("#UD: c and a differ in rows", amx_dot, 48, 8, 16, 64),
    AMX_RULE("#UD: a's columns are not b's rows", amx_dot, 50, 8, 16, 64),
    AMX_RULE("#UD: VEX.W is 1", amx_vex_w, 0, 1, 16, 64),
    AMX_RULE("#UD: VEX.L is 1", amx_vex_l, 0, 1, 16, 64),
    AMX_RULE("#UD: VEX.vvvv names a register", amx_vvvv, 0, 1, 16, 64),
    AMX_RULE("#UD: a prefix before VEX", amx_prefix, 0, 1, 16, 64),
    AMX_RULE("#UD: a prefix before VEX", amx_lock, 0, 1, 16, 64),
    AMX_RULE("#UD: an address without base and index", amx_no_sib, 0, 1, 16, 64),
    AMX_RULE("#UD: a tile above 7", amx_tile8, 0, 1, 16, 64),
    AMX_RULE("#UD: a tile above 7", amx_tile_b, 0, 1, 16, 64),
    AMX_RULE(NULL, amx_zero0, 0, 1, 16, 64), /* and these are allowed */
    AMX_RULE(NULL, amx_load, 1, 15, 16, 64),
    AMX_RULE(NULL, amx_dot, 0, 1, 16, 64),
    AMX_RULE(NULL, amx_config, 18, 62, 16, 64),
    AMX_RULE(NULL, amx_release, 0, 1, 16, 64),
};

static void test_amx_rules(void) {
    size_t count = sizeof amx_rules / sizeof *amx_rules;
    for (size_t i = 0; i < count; i++) {
        amx_shape(amx_rules[i].rows, amx_rules[i].bytes);
        amx.config[amx_rules[i].at] = (uint8_t)amx_rules[i].value;
        const char *rule = amx_rules[i].rule, *broken = amx_verdict(amx_rules[i].trapped);
        if (rule == NULL) CHECK(broken == NULL);
        else CHECK(broken != NULL && strcmp(broken, rule) == 0);
        if (!amx_native()) continue;
        broken = amx_verdict(amx_rules[i].bare);
        CHECK(rule == NULL ? broken == NULL : broken != NULL && memcmp(broken, rule, 3) == 0);
        if ((rule == NULL) != (broken == NULL)) printf("    %u: %s\n", (unsigned)i, rule);
    }
    printf("     %u pieces of code trapped%s\n", (unsigned)count,
           amx_native() ? ", the processor says the same" : "; no processor to compare with");
    amx_verdict(amx_release_trapped);
    if (amx_native()) amx_verdict(amx_release_bare);
}

/* data[0] c, data[1] a, data[2] b; result to data[3]. Addresses in several forms. */
#define AMX_PRODUCT(product)                                                                     \
    AMX_CONFIG "T\n\ttileloadd (%%rdx,%%rcx,1), %%tmm0\n\t"                                      \
    "lea 960(%%rdx), %%r8\n\tlea 64(%%rdi), %%r12\n\t"                                           \
    "T\n\ttileloadd 64(%%r8,%%r12,1), %%tmm4\n\t"                                                \
    "lea 32(%%rdi), %%r12\n\t"                                                                   \
    "T\n\ttileloaddt1 2048(%%rdx,%%r12,2), %%tmm6\n\t"                                           \
    "T\n\t" product "\n\t"                                                                       \
    "T\n\ttilestored %%tmm0, 3072(%%rdx,%%rcx,1)"
AMX_CODE(amx_ssd, AMX_PRODUCT("tdpbssd %%tmm6, %%tmm4, %%tmm0"))
AMX_CODE(amx_sud, AMX_PRODUCT("tdpbsud %%tmm6, %%tmm4, %%tmm0"))
AMX_CODE(amx_usd, AMX_PRODUCT("tdpbusd %%tmm6, %%tmm4, %%tmm0"))
AMX_CODE(amx_uud, AMX_PRODUCT("tdpbuud %%tmm6, %%tmm4, %%tmm0"))
AMX_CODE(amx_bf16, AMX_PRODUCT("tdpbf16ps %%tmm6, %%tmm4, %%tmm0"))

static int32_t amx_first(void) {
    int32_t v;
    memcpy(&v, amx.data[3], 4);
    return v;
}

/* Four bytes 200 (-56) by four bytes 3 or 253 (-3), by hand; bf16: (2^24, 1) by (1, 1) onto -2^24
 * is 0, because 1 meets 2^24 before it meets c; (2^24, 1, -2^24, 1) by ones is 2, in one chain it
 * would be 1. */
static void test_amx_products(void) {
    static const uint16_t pair[2] = {0x4B80, 0x3F80}, ones[2] = {0x3F80, 0x3F80};
    static const uint16_t four[4] = {0x4B80, 0x3F80, 0xCB80, 0x3F80};
    const uint32_t        minus = 0xCB800000u;
    amx_shape(1, 4);
    memset(amx.data, 0, sizeof amx.data);
    memset(amx.data[1], 200, 4), memset(amx.data[2], 253, 4);
    CHECK(amx_verdict(amx_ssd_trapped) == NULL && amx_first() == 4 * -56 * -3);
    CHECK(amx_verdict(amx_sud_trapped) == NULL && amx_first() == 4 * -56 * 253);
    CHECK(amx_verdict(amx_usd_trapped) == NULL && amx_first() == 4 * 200 * -3);
    CHECK(amx_verdict(amx_uud_trapped) == NULL && amx_first() == 4 * 200 * 253);
    memcpy(amx.data[0], &minus, 4), memcpy(amx.data[1], pair, 4), memcpy(amx.data[2], ones, 4);
    CHECK(amx_verdict(amx_bf16_trapped) == NULL && amx_first() == 0);
    amx.config[24] = 8, amx.config[54] = 2; /* a has two pairs, b two rows: each half is a chain */
    memset(amx.data[0], 0, 4), memcpy(amx.data[1], four, 8);
    memcpy(amx.data[2] + 64, ones, 4);
    CHECK(amx_verdict(amx_bf16_trapped) == NULL && amx_first() == 0x40000000);
}

/* Random tiles, the processor against the emulator: bytes, and bf16 with denormals and overflow
 * but without NaN. */
static void test_amx_native(void) {
    static void (*const pairs[][2])(void) = {{amx_ssd_trapped, amx_ssd_bare},
        {amx_sud_trapped, amx_sud_bare}, {amx_usd_trapped, amx_usd_bare},
        {amx_uud_trapped, amx_uud_bare}, {amx_bf16_trapped, amx_bf16_bare}};
    uint64_t state = test_seed, wrong = 0;
    char     want[1024];
    if (!amx_native()) {
        test_skip("amx_native", "no processor to compare with");
        return;
    }
    amx_shape(16, 64);
    for (size_t i = 0; i < 1000; i++) {
        for (size_t j = 0; j < 3 * 512; j++) {
            uint16_t u = (uint16_t)test_rnd(&state);
            int      limit = i % 3 == 0 ? 0x3F80 : 0x5F00; /* every third time into denormals */
            if (i % 5 == 4) u = (uint16_t)((u & 0x807F) | ((limit + (int)(u & 0x700)) & 0x7F80));
            if (i % 5 == 4 && i % 3 == 1) u &= 0x9FFF;
            memcpy(amx.data[0] + 2 * j, &u, 2);
        }
        CHECK(amx_verdict(pairs[i % 5][0]) == NULL);
        memcpy(want, amx.data[3], sizeof want);
        memset(amx.data[3], 0, sizeof want);
        CHECK(amx_verdict(pairs[i % 5][1]) == NULL);
        wrong += memcmp(want, amx.data[3], sizeof want) != 0;
    }
    CHECK_INT(wrong, 0);
    amx_verdict(amx_release_bare);
    printf("     1000 products of full tiles, the processor's bits\n");
}

static void test_amx_count(void) {
    CHECK(emulator_count > 0);
    printf("     %ld tile instructions trapped and executed\n", emulator_count);
}

static const test tests_extra[] = {{"amx_rules", test_amx_rules},
                                   {"amx_products", test_amx_products},
                                   {"amx_native", test_amx_native},
                                   {"amx_count", test_amx_count}};
#else
static void test_amx_absent(void) {
    test_skip("amx_rules", "this build has no AMX");
}
static const test tests_extra[] = {{"amx_absent", test_amx_absent}};
#endif
