/* test_base.c -- tests of part B. */

/* ---- sizes -------------------------------------------------------------------------------- */

/* The upper 64 bits of a * b, by halves. */
static uint64_t test_high_half(uint64_t a, uint64_t b) {
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t middle = ah * bl + (al * bl >> 32);
    return ah * bh + (middle >> 32) + ((al * bh + (uint32_t)middle) >> 32);
}

static void test_size_triples(void) {
    static const uint64_t at[] = {0, 1, 2, 7, 255, 256, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFFu,
                                  0x100000000u, 0x7FFFFFFFFFFFFFFFu, 0x8000000000000000u,
                                  UINT64_MAX - 1, UINT64_MAX};
    size_t n = sizeof at / sizeof *at;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            uint64_t r = 77, sum = at[i] + at[j], product = at[i] * at[j];
            int      fits = sum >= at[i];
            CHECK_INT(dp__add_u64(at[i], at[j], &r), fits);
            CHECK(r == (fits ? sum : 77));
            r = 77;
            fits = test_high_half(at[i], at[j]) == 0;
            CHECK_INT(dp__mul_u64(at[i], at[j], &r), fits);
            CHECK(r == (fits ? product : 77));
        }
    }
    size_t up = 77;
    CHECK(!dp__round_up(SIZE_MAX - 62, 64, &up) && up == 77);
    CHECK(dp__round_up(SIZE_MAX - 63, 64, &up) && up == SIZE_MAX - 63);
    CHECK(dp__round_up(65, 64, &up) && up == 128);
}

/* ---- numbers ------------------------------------------------------------------------------ */

static int test_same_double(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static void test_number_read_case(const char *text) {
    double got = 0;
    int    ok = dp__read_double(text, strlen(text), &got);
    double want = strtod(text, NULL);
    CHECK(ok == (want <= DBL_MAX && want >= -DBL_MAX));
    if (ok && !test_same_double(got, want)) {
        printf("    %s: %.17g against %.17g\n", text, got, want);
        CHECK(!"read");
    }
}

static void test_number_read_hard(void) {
    static const char *const cases[] = {
        "0", "-0", "0.0", "-0.0e5", "1", "10", "0.1", "1e22", "1e23", "9007199254740993",
        "9007199254740992.5", "9007199254740993.0000000000000000001", "4.9406564584124654e-324",
        "2.4703282292062327e-324", "2.4703282292062328e-324", "2.47032822920623272e-324",
        "2.2250738585072014e-308", "2.2250738585072011e-308", "2.2250738585072012e-308",
        "1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308", "1e308",
        "1e309", "1e400", "1e-400", "0.1e-999999999", "1e999999999", "-1e999999999",
        "0e999999999", "123456789012345678901234567890e-30", "8.5e-324", "0.000001",
        "1234567890123456789012345678901234567890123456789012345678901234",
        "9.99999999999999999999999999999999999999999999999999999999999999",
        "0.00000000000000000000000000000000000000000000000000000000000001", "6929495644600919.5",
        "3.7455744005952583e15", "5e-324", "1.00000000000000011102230246251565404236316680908203",
        "1.00000000000000011102230246251565404236316680908204",
    };
    static const char *const bad[] = {"", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "nan",
                                      "inf", "1 ", " 1", "1e5.0", "--1", "1_0", "1e-", "00"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_number_read_case(cases[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double v = 5;
        CHECK(!dp__read_double(bad[i], strlen(bad[i]), &v) && v > 4);
    }
    char text[80];
    double v;
    memset(text, '7', sizeof text);
    CHECK(dp__read_double(text, DP_MAX_JSON_NUMBER - 1, &v));
    CHECK(dp__read_double(text, DP_MAX_JSON_NUMBER, &v));
    CHECK(!dp__read_double(text, DP_MAX_JSON_NUMBER + 1, &v));
}

/* Random bit patterns through our printer and our reader, random decimals through the reader;
 * strtod of the C library, which is exact, is the judge. */
static void test_number_round_trip(void) {
    uint64_t s = test_seed;
    size_t   rounds = test_long() ? 2000000 : 150000, bad = 0;
    for (size_t i = 0; i < rounds; i++) {
        uint64_t r = test_rnd(&s);
        uint32_t r32 = (uint32_t)(r >> 7);
        double   v, got = 0;
        float    f;
        char     text[64];
        memcpy(&v, &r, sizeof v);
        memcpy(&f, &r32, sizeof f);
        if (v <= DBL_MAX && v >= -DBL_MAX) {
            dp__text t = {text, sizeof text, 0};
            dp__text_f64(&t, v);
            bad += !test_same_double(strtod(text, NULL), v);
            bad += !dp__read_double(text, t.n, &got) || !test_same_double(got, v);
            snprintf(text, sizeof text, "%.*e", (int)(r % 21), v);
            if (!dp__read_double(text, strlen(text), &got)) got = v < 0 ? -HUGE_VAL : HUGE_VAL;
            bad += !test_same_double(got, strtod(text, NULL));
        }
        if (f <= FLT_MAX && f >= -FLT_MAX) {
            dp__text t = {text, sizeof text, 0};
            dp__text_f32(&t, f);
            float back = (float)strtod(text, NULL);
            bad += memcmp(&back, &f, sizeof f) != 0;
            bad += !dp__read_double(text, t.n, &got);
            back = (float)got;
            bad += memcmp(&back, &f, sizeof f) != 0;
        }
    }
    printf("    %zu random doubles and floats, different from strtod: %zu\n", rounds, bad);
    CHECK_INT(bad, 0);
}

static void test_number_text(void) {
    static const struct { double v; const char *f64, *f32; } cases[] = {
        {0.0, "0.0", "0.0"}, {-0.0, "-0.0", "-0.0"}, {1.0, "1.0", "1.0"}, {0.02, "0.02", "0.02"},
        {1e-12, "1e-12", "1e-12"}, {30522.0, "30522.0", "30522.0"}, {1e22, "1e+22", "1e+22"},
        {0.1, "0.1", "0.1"}, {1.0 / 3.0, "0.3333333333333333", "0.33333334"},
        {123456789012345680.0, "1.2345678901234568e+17", "1.2345679e+17"},
        {-2.5e-5, "-0.000025", "-0.000025"}, {9.9999999e-6, "9.9999999e-06", "0.00001"},
        {1e16, "1e+16", "1e+16"}, 
        {9007199254740991.0, "9007199254740991.0", "9007199000000000.0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char     a[40], b[40];
        dp__text ta = {a, sizeof a, 0}, tb = {b, sizeof b, 0};
        dp__text_f64(&ta, cases[i].v);
        dp__text_f32(&tb, (float)cases[i].v);
        if (strcmp(a, cases[i].f64) || strcmp(b, cases[i].f32)) printf("    %s %s\n", a, b);
        CHECK(strcmp(a, cases[i].f64) == 0);
        CHECK(strcmp(b, cases[i].f32) == 0);
    }
}

static void test_number_u64(void) {
    uint64_t v = 7;
    CHECK(dp__read_u64("18446744073709551615", 20, &v) && v == UINT64_MAX);
    CHECK(dp__read_u64("0", 1, &v) && v == 0);
    v = 7;
    CHECK(!dp__read_u64("18446744073709551616", 20, &v) && !dp__read_u64("", 0, &v));
    CHECK(!dp__read_u64("01", 2, &v) && !dp__read_u64("-1", 2, &v) && !dp__read_u64("1e1", 3, &v));
    CHECK(v == 7);
}

/* ---- random, sort, hash ------------------------------------------------------------------- */

static void test_rng_values(void) {
    dp__rng rng = {1234567};
    /* first outputs of the reference SplitMix64 for the seed 1234567 */
    CHECK(dp__rng_next(&rng) == 6457827717110365317u);
    CHECK(dp__rng_next(&rng) == 3203168211198807973u);
    CHECK(dp__rng_next(&rng) == 9817491932198370423u);
    size_t seen[6] = {0, 0, 0, 0, 0, 0};
    double sum = 0;
    for (int i = 0; i < 60000; i++) {
        double u = dp__rng_uniform(&rng);
        CHECK(u > 0 && u < 1);
        sum += u;
        seen[dp__rng_below(&rng, 6)]++;
    }
    CHECK(fabs(sum / 60000 - 0.5) < 0.006); /* five standard deviations */
    for (int i = 0; i < 6; i++) CHECK(seen[i] > 9500 && seen[i] < 10500);
    CHECK(dp__rng_below(&rng, 1) == 0);
}

/* All 24 orders of 4 items come up about equally often. */
static void test_rng_shuffle(void) {
    dp__rng rng = {test_seed};
    size_t  seen[256] = {0}, kinds = 0;
    for (int i = 0; i < 24000; i++) {
        uint32_t order[4] = {0, 1, 2, 3};
        dp__shuffle(order, 4, &rng);
        seen[order[0] << 6 | order[1] << 4 | order[2] << 2 | order[3]]++;
    }
    for (int i = 0; i < 256; i++) {
        kinds += seen[i] > 0;
        CHECK(seen[i] == 0 || (seen[i] > 800 && seen[i] < 1200));
    }
    CHECK_INT(kinds, 24);
}

static int test_compare_u32(const void *a, const void *b) {
    uint32_t x, y;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    return x < y ? -1 : x > y;
}

static void test_sort_all(void) {
    uint64_t s = test_seed;
    uint32_t a[300], b[300];
    for (size_t n = 0; n <= 300; n++) {
        for (size_t i = 0; i < n; i++) a[i] = b[i] = (uint32_t)(test_rnd(&s) % (1 + n / 2));
        dp__sort(a, n, sizeof *a, test_compare_u32);
        qsort(b, n, sizeof *b, test_compare_u32);
        CHECK(n == 0 || memcmp(a, b, n * sizeof *a) == 0);
    }
}

/* FIPS 180-4 examples and the NIST vectors for messages of 0 to 3 bytes, 55..65 bytes by pieces. */
static void test_sha_vectors(void) {
    static const struct { const char *text, *hex; } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnop"
         "qrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
        {"\xd3", "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1"},
        {"\x11\xaf", "5ca7133fa735326081558ac312c620eeca9970d1e70a4b95533d956f072d1f98"},
        {"\xb4\x19\x0e", "dff2e73091f6c05e528896c4c831b9448653dc2ff043528f6769437bc7b975c2"},
    };
    char hex[65];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dp_sha256(cases[i].text, strlen(cases[i].text), hex);
        CHECK(strcmp(hex, cases[i].hex) == 0);
    }
    char *million = (char *)malloc(1000000);
    memset(million, 'a', 1000000);
    dp_sha256(million, 1000000, hex);
    CHECK(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0);
    for (size_t n = 50; n < 140; n++) { /* any way to cut gives the same digest */
        dp__sha256 s;
        uint8_t    digest[32];
        char       whole[65];
        dp_sha256(million, n, whole);
        dp__sha256_init(&s);
        for (size_t at = 0; at < n; at += n % 7 + 1)
            dp__sha256_add(&s, million, at + n % 7 + 1 <= n ? n % 7 + 1 : n - at);
        dp__sha256_end(&s, digest);
        dp__hex(digest, 32, hex);
        CHECK(strcmp(hex, whole) == 0);
    }
    free(million);
}

static const test tests_base[] = {
    {"size_triples", test_size_triples},
    {"number_read_hard", test_number_read_hard},
    {"number_round_trip", test_number_round_trip},
    {"number_text", test_number_text},
    {"number_u64", test_number_u64},
    {"rng_values", test_rng_values},
    {"rng_shuffle", test_rng_shuffle},
    {"sort_all", test_sort_all},
    {"sha_vectors", test_sha_vectors},
};
