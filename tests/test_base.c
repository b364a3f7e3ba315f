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

/* ---- memory and sentences ----------------------------------------------------------------- */

static void test_mem_arena(void) {
    test_heap heap;
    memset(&heap, 0, sizeof heap);
    dp_alloc  alloc = {test_heap_alloc, test_heap_free, &heap};
    dp__arena arena;
    dp__arena_init(&arena, &alloc);
    unsigned char *last = NULL;
    for (size_t n = 1; n < 3000; n += 7) {
        unsigned char *p = (unsigned char *)dp__arena_get(&arena, n, 3);
        CHECK(p != NULL && (uintptr_t)p % 64 == 0 && p != last);
        for (size_t i = 0; i < 3 * n; i++) CHECK(p[i] == 0);
        memset(p, 0xFF, 3 * n);
        last = p;
    }
    CHECK_INT(arena.total, heap.live_bytes);
    CHECK(dp__arena_get(&arena, SIZE_MAX / 2, 3) == NULL);
    CHECK(dp__arena_get(&arena, SIZE_MAX, 1) == NULL);
    CHECK(dp__arena_get(&arena, SIZE_MAX - 64, 1) == NULL);
    heap.fail_at = heap.calls + 1;
    CHECK(dp__arena_get(&arena, 100000, 1) == NULL);
    CHECK(dp__arena_get(&arena, 100000, 1) != NULL); /* usable afterwards */
    dp__arena_free(&arena);
    CHECK_INT(heap.live_bytes, 0);
}

static void test_mem_buffer(void) {
    test_heap heap;
    memset(&heap, 0, sizeof heap);
    dp_alloc   alloc = {test_heap_alloc, test_heap_free, &heap};
    dp__buffer b;
    dp__buffer_init(&b, &alloc);
    for (int i = 0; i < 5000; i++) {
        char c = (char)i;
        dp__buffer_add(&b, &c, 1);
    }
    CHECK(!b.failed);
    CHECK_INT(b.n, 5000);
    for (int i = 0; i < 5000; i++) CHECK(b.p[i] == (char)i);
    dp__buffer_add(&b, "x", SIZE_MAX); /* the length overflows; the contents stay */
    CHECK(b.failed && b.n == 5000);
    dp__buffer_add(&b, "x", 1); /* the failure sticks */
    CHECK(b.failed && b.n == 5000 && b.p[4999] == (char)4999);
    dp__buffer_free(&b);
    dp__buffer_init(&b, &alloc);
    heap.fail_at = heap.calls + 1;
    dp__buffer_add(&b, "x", 1);
    CHECK(b.failed && b.n == 0);
    dp__buffer_free(&b);
    CHECK_INT(heap.live_bytes, 0);
}

static void test_text_sentences(void) {
    char      name[80], tiny[5];
    dp_error  err;
    memset(name, 'x', sizeof name);
    name[79] = 0;
    CHECK(dp__fail_at(&err, DP_E_FORMAT, "S9", "m\n\\", 96, "a hole", name) == DP_E_FORMAT);
    CHECK_TEXT(err.file, "m\\x0a\\x5c");
    CHECK(err.place == 96 && strcmp(err.rule, "S9") == 0 && err.code == DP_E_FORMAT);
    name[64] = 0; /* names are cut at 64 bytes */
    CHECK(strncmp(err.text, "m\\x0a\\x5c: byte 96: rule S9: a hole: 'xxxx", 42) == 0);
    CHECK(strstr(err.text, name) != NULL && strcmp(strstr(err.text, name) + 64, "...'") == 0);
    CHECK(dp__fail_at(NULL, DP_E_IO, "", NULL, 96, "x", name) == DP_E_IO);
    dp__text t = {tiny, sizeof tiny, 0};
    dp__text_add(&t, "abcdefgh");
    CHECK_TEXT(tiny, "abcd");
}

/* ---- platform ----------------------------------------------------------------------------- */

#ifndef FLT_EVAL_METHOD /* tcc: its floats are floats */
#define FLT_EVAL_METHOD 0
#endif

/* x * x - y in two roundings is 0 here; a fused multiply-subtract leaves 2^-24. */
static void test_platform_not_fused(void) {
    volatile float start = 1.0f + 1.0f / 4096;
    float x = start, y = 1.0f + 1.0f / 2048, two = x * x - y;
    CHECK(FLT_EVAL_METHOD != 0 || two == 0);
}

static void test_platform_sizes(void) {
    CHECK(sizeof(float) == 4 && sizeof(double) == 8 && FLT_MANT_DIG == 24 && DBL_MANT_DIG == 53);
    CHECK(DP_MAX_JSON_DEPTH <= 64 && DP__ALIGN == 64);
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
        FAIL("read");
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
        "0e999999999", "1e4294967297", "5e-4294967295",
        "123456789012345678901234567890e-30", "8.5e-324", "0.000001",
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

/* The shortest of %.5e to %.8e that strtod reads back as f, its zeros at the end left out: digits
 * and exponent, "-123e4". */
static void test_shortest(float f, char to[32]) {
    char text[32];
    for (int n = 5; n < 9; n++) {
        snprintf(text, sizeof text, "%.*e", n, (double)f);
        if ((float)strtod(text, NULL) == f) break;
    }
    char *e = strchr(text, 'e'), *p = to;
    for (char *q = text; q < e; q++) {
        if (*q != '.') *p++ = *q;
    }
    while (p > to + 1 && p[-1] == '0') p--;
    sprintf(p, "e%d", atoi(e + 1));
}

/* What our printer wrote, in the form of test_shortest. */
static void test_digits_of(const char *text, char to[32]) {
    const char *e = strchr(text, 'e');
    int   exponent = e != NULL ? atoi(e + 1) : 0, point = -1, first = -1, at = 0;
    char *p = to;
    for (const char *q = text; *q != 0 && q != e; q++) {
        if (*q == '-') *p++ = '-';
        else if (*q == '.') point = at;
        else if (*q == '0' && first < 0) at++;
        else {
            if (first < 0) first = at;
            at++;
            *p++ = *q;
        }
    }
    if (point < 0) point = at;
    while (p > to + 1 && p[-1] == '0') p--;
    sprintf(p, "e%d", exponent + point - 1 - first);
}

/* Random bit patterns as decimals of any length through the reader, floats through the printer;
 * strtod and printf of the C library, which are exact, are the judges. */
static void test_number_round_trip(void) {
    uint64_t s = test_seed;
    size_t   rounds = test_long() ? 2000000 : 150000, bad = 0, odd = 0;
    for (size_t i = 0; i < rounds; i++) {
        uint64_t r = test_rnd(&s);
        uint32_t r32 = (uint32_t)(r >> 7);
        double   v, got = 0;
        float    f;
        char     text[64], ours[32], want[32];
        memcpy(&v, &r, sizeof v);
        memcpy(&f, &r32, sizeof f);
        if (v <= DBL_MAX && v >= -DBL_MAX) {
            snprintf(text, sizeof text, "%.*e", (int)(r % 21), v);
            if (!dp__read_double(text, strlen(text), &got)) got = v < 0 ? -HUGE_VAL : HUGE_VAL;
            bad += !test_same_double(got, strtod(text, NULL));
        }
        if (f <= FLT_MAX && f >= -FLT_MAX && f != 0) {
            dp__text t = {text, sizeof text, 0};
            dp__text_f32(&t, f);
            bad += (float)strtod(text, NULL) != f;
            bad += !dp__read_double(text, t.n, &got) || (float)got != f;
            test_digits_of(text, ours);
            test_shortest(f, want);
            odd += strcmp(ours, want) != 0;
        }
    }
    printf("    %zu random doubles and floats, different from strtod: %zu, from printf: %zu\n",
           rounds, bad, odd);
    CHECK_INT(bad, 0);
    CHECK_INT(odd, 0);
}

static void test_number_text(void) {
    static const struct { float v; const char *text; } cases[] = {
        {0.0f, "0.0"}, {-0.0f, "-0.0"}, {1.0f, "1.0"}, {0.02f, "0.02"}, {1e-12f, "1e-12"},
        {30522.0f, "30522.0"}, {1e22f, "1e+22"}, {0.1f, "0.1"}, {1.0f / 3.0f, "0.33333334"},
        {123456789012345680.0f, "1.2345679e+17"}, {-2.5e-5f, "-0.000025"},
        {9.9999999e-6f, "0.00001"}, {1e16f, "1e+16"}, {9007199254740991.0f, "9007199000000000.0"},
        {0.000244140625f, "0.00024414062"}, {FLT_MAX, "3.4028235e+38"}, {1e-45f, "1.4013e-45"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char     text[40];
        dp__text t = {text, sizeof text, 0};
        dp__text_f32(&t, cases[i].v);
        CHECK_TEXT(text, cases[i].text);
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
    for (int i = 0; i < 60000; i++) {
        seen[dp__rng_below(&rng, 6)]++;
    }
    for (int i = 0; i < 6; i++) CHECK(seen[i] > 9500 && seen[i] < 10500);
    CHECK(dp__rng_below(&rng, 1) == 0);
    size_t   low = 0; /* without a second draw for the last incomplete range half would be low */
    uint64_t third = (uint64_t)1 << 62;
    for (int i = 0; i < 3000; i++) low += dp__rng_below(&rng, 3 * third) < third;
    CHECK(low > 850 && low < 1150);
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
static void test_sha256_vectors(void) {
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

/* ---- files -------------------------------------------------------------------------------- */

#include <dirent.h>

/* A new directory; the caller removes it by files_drop. */
static void files_new(char path[64]) {
    snprintf(path, 64, "build/files-XXXXXX");
    if (mkdtemp(path) != NULL) return;
    snprintf(path, 64, "/tmp/files-XXXXXX");
    if (mkdtemp(path) == NULL) abort();
}

/* Counts (and with remove, deletes) the entries whose names hold part. */
static int files_count(const char *path, const char *part, int remove_them) {
    DIR *d = opendir(path);
    int  n = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (strstr(e->d_name, part) == NULL) continue;
        n++;
        if (remove_them && unlinkat(dirfd(d), e->d_name, 0) != 0)
            unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    if (d != NULL) closedir(d);
    return n;
}

static void files_drop(const char *path) {
    files_count(path, "", 1);
    rmdir(path);
}

static void files_env(dp_env *env, int follow) {
    dp_env   in;
    dp_error err;
    DP_CLEAR(in);
    in.follow_links = follow;
    CHECK(dp__env_init(&in, env, &err) == DP_OK);
}

/* What stands in a file, or the status as a negative number. */
static long files_read(const dp_env *env, void *dir, const char *name, char to[32]) {
    dp__arena arena;
    dp_error  err;
    char     *text = NULL;
    size_t    bytes = 0;
    dp__arena_init(&arena, &env->alloc);
    dp_status status = dp__file_read(env, dir, name, 31, &arena, &text, &bytes, &err);
    memset(to, 0, 32);
    if (status == DP_OK) memcpy(to, text, bytes);
    else CHECK(err.code == status && strcmp(err.file, name) == 0);
    dp__arena_free(&arena);
    return status == DP_OK ? (long)bytes : -(long)status;
}

static void test_file_round_trip(void) {
    char   path[64], to[32], sub[80];
    dp_env env;
    void  *dir = NULL;
    struct stat st;
    dp_error err;
    uint64_t space = 0;
    files_new(path);
    files_env(&env, 0);
    CHECK(dp__dir_open(&env, path, 0, &dir, &err) == DP_OK);
    CHECK(dp__file_write(&env, dir, "a", "first", 5, &err) == DP_OK);
    CHECK(dp__file_write(&env, dir, "a", "second!", 7, &err) == DP_OK);
    CHECK(files_read(&env, dir, "a", to) == 7 && strcmp(to, "second!") == 0);
    CHECK(dp__file_write(&env, dir, "empty", "", 0, &err) == DP_OK);
    CHECK(files_read(&env, dir, "empty", to) == 0);
    snprintf(sub, sizeof sub, "%s/a", path);
    CHECK(stat(sub, &st) == 0 && (st.st_mode & 0777) == 0600); /* F7 */
    CHECK_INT(files_count(path, "", 0), 2);
    CHECK(env.io.free_space(env.io.ctx, dir, &space) == DP_OK && space > 0);
    CHECK(env.io.remove(env.io.ctx, dir, "a") == DP_OK);
    CHECK(env.io.remove(env.io.ctx, dir, "a") == DP_E_NOT_FOUND);
    CHECK_INT(files_read(&env, dir, "a", to), -DP_E_NOT_FOUND);
    void *file = NULL;
    CHECK(env.io.create(env.io.ctx, dir, "b", &file) == DP_OK);
    CHECK_INT(files_count(path, "b.tmp-", 0), 1);
    CHECK(env.io.append(env.io.ctx, file, "x", 1) == DP_OK);
    env.io.abort(env.io.ctx, file);
    CHECK_INT(files_count(path, "b", 0), 0);
    env.io.close_dir(env.io.ctx, dir);
    CHECK(dp__dir_open(&env, sub, 0, &dir, &err) == DP_E_NOT_FOUND);
    CHECK(dp__dir_open(&env, sub, 1, &dir, &err) == DP_OK); /* made */
    env.io.close_dir(env.io.ctx, dir);
    CHECK(dp__dir_open(&env, sub, 1, &dir, &err) == DP_OK); /* it is there already */
    env.io.close_dir(env.io.ctx, dir);
    CHECK(dp__dir_open(&env, NULL, 0, &dir, &err) == DP_E_ARG);
    files_drop(path);
}

/* F2, F3, F5 and the limit of a whole file. */
static void test_file_odd(void) {
    char     path[64], to[32], sub[80];
    dp_env   env, follow;
    void    *dir = NULL, *file = NULL;
    dp_error err;
    uint64_t bytes = 0;
    files_new(path);
    files_env(&env, 0);
    files_env(&follow, 1);
    CHECK(dp__dir_open(&env, path, 0, &dir, &err) == DP_OK);
    CHECK(dp__file_write(&env, dir, "plain", "0123456789", 10, &err) == DP_OK);
    snprintf(sub, sizeof sub, "%s/link", path);
    CHECK(symlink("plain", sub) == 0);
    CHECK_INT(files_read(&env, dir, "link", to), -DP_E_UNSUPPORTED);
    dp__io_fail(&err, DP_E_UNSUPPORTED, "link");
    CHECK(strcmp(err.rule, "F2") == 0 && strstr(err.text, "--follow-links") != NULL);
    CHECK(files_read(&follow, dir, "link", to) == 10);
    snprintf(sub, sizeof sub, "%s/ring", path);
    CHECK(symlink("ring", sub) == 0);
    CHECK_INT(files_read(&follow, dir, "ring", to), -DP_E_IO); /* no advice to follow links */
    snprintf(sub, sizeof sub, "%s/fifo", path);
    CHECK(mkfifo(sub, 0600) == 0);
    CHECK_INT(files_read(&env, dir, "fifo", to), -DP_E_FORMAT); /* and does not wait */
    snprintf(sub, sizeof sub, "%s/dir", path);
    CHECK(mkdir(sub, 0700) == 0);
    CHECK_INT(files_read(&env, dir, "dir", to), -DP_E_FORMAT);
    snprintf(sub, sizeof sub, "%s/zero", path);
    CHECK(symlink("/dev/zero", sub) == 0);
    CHECK_INT(files_read(&follow, dir, "zero", to), -DP_E_FORMAT);
    snprintf(sub, sizeof sub, "%s/plain", path);
    for (int make = 0; make < 2; make++) {
        CHECK(dp__dir_open(&env, sub, make, &file, &err) == DP_E_FORMAT);
        CHECK(strcmp(err.rule, "F3") == 0 && strstr(err.text, "is not a directory") != NULL);
    }
    static const char text[33] = "01234567890123456789012345678901";
    for (size_t n = 30; n <= 32; n++) { /* limit 31: below, at, above */
        CHECK(dp__file_write(&env, dir, "sized", text, n, &err) == DP_OK);
        CHECK_INT(files_read(&env, dir, "sized", to), n <= 31 ? (long)n : -DP_E_LIMIT);
    }
    for (int grows = 0; grows < 2; grows++) { /* F5: the size changes under our hands */
        snprintf(sub, sizeof sub, "%s/plain", path);
        CHECK(dp__file_write(&env, dir, "plain", "0123456789", 10, &err) == DP_OK);
        CHECK(env.io.open(env.io.ctx, dir, "plain", &file, &bytes) == DP_OK && bytes == 10);
        CHECK(env.io.pread(env.io.ctx, file, 4, to, 6) == DP_OK && memcmp(to, "456789", 6) == 0);
        CHECK(env.io.pread(env.io.ctx, file, 4, to, 7) == DP_E_ARG);
        CHECK(env.io.pread(env.io.ctx, file, 11, to, 0) == DP_E_ARG);
        CHECK(env.io.pread(env.io.ctx, file, UINT64_MAX, to, 1) == DP_E_ARG);
        CHECK(truncate(sub, grows ? 11 : 9) == 0);
        CHECK_INT(env.io.pread(env.io.ctx, file, 0, to, 4), DP_E_IO);
        env.io.close(env.io.ctx, file);
    }
    env.io.close_dir(env.io.ctx, dir);
    files_drop(path);
}

/* F1 */
static void test_file_names(void) {
    static const char *const good[] = {"a", "model-00001-of-00002.safetensors", "...", "a b", ".x",
                                       "\xc3\xa9", "console", "nullx", "com", "com10", "lptx"};
    static const char *const bad[] = {"", ".", "..", "a/b", "/a", "../a", "a\\b", "c:a", "a\n",
                                      "\x7f", "\x01", "con", "NUL", "Aux.txt", "prn.", "com1",
                                      "LPT9.x", "com0"};
    char long_name[DP__NAME_BYTES + 2];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(dp__file_name_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (dp__file_name_ok(bad[i])) printf("    %s\n", bad[i]);
        CHECK(!dp__file_name_ok(bad[i]));
    }
    memset(long_name, 'x', sizeof long_name);
    for (int more = -1; more <= 1; more++) {
        long_name[DP__NAME_BYTES + more] = 0;
        CHECK_INT(dp__file_name_ok(long_name), more <= 0);
        long_name[DP__NAME_BYTES + more] = 'x';
    }
    dp_env   env;
    dp_error err;
    void    *dir = NULL, *file = NULL;
    uint64_t bytes;
    char     path[64];
    files_new(path);
    files_env(&env, 0);
    CHECK(dp__dir_open(&env, path, 0, &dir, &err) == DP_OK);
    CHECK(env.io.open(env.io.ctx, dir, "../x", &file, &bytes) == DP_E_ARG);
    CHECK(env.io.create(env.io.ctx, dir, "../x", &file) == DP_E_ARG);
    CHECK(env.io.remove(env.io.ctx, dir, "../x") == DP_E_ARG);
    env.io.close_dir(env.io.ctx, dir);
    files_drop(path);
}

/* Opens the directory, writes "new..." over "old", reads it back; every call fails in turn. */
static dp_status faults_run(const dp_env *env, const char *path, char to[32]) {
    void    *dir = NULL;
    dp_error err;
    memset(to, 0, 32);
    dp_status status = dp__dir_open(env, path, 1, &dir, &err);
    if (status != DP_OK) return status;
    status = dp__file_write(env, dir, "f", "new content", 11, &err);
    if (status == DP_OK) {
        long n = files_read(env, dir, "f", to);
        status = n < 0 ? (dp_status)-n : DP_OK;
    }
    env->io.close_dir(env->io.ctx, dir);
    return status;
}

static void test_file_faults(void) {
    static const int codes[] = {EIO, ENOSPC, EINTR, EDQUOT, EROFS, EACCES, EMFILE, ENOMEM, 0};
    char   path[64], to[32], sub[80];
    dp_env env;
    int    points = 0, cut_points = 0;
    files_new(path);
    files_env(&env, 0);
    snprintf(sub, sizeof sub, "%s/f", path);
    for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            if (codes[c] == EINTR && for_ever) continue; /* a retry would never end: by design */
            for (int at = 1;; at++) {
                void    *dir = NULL;
                dp_error err;
                CHECK(dp__dir_open(&env, path, 0, &dir, &err) == DP_OK);
                CHECK(dp__file_write(&env, dir, "f", "old", 3, &err) == DP_OK);
                memset(&faults, 0, sizeof faults);
                faults.on = 1;
                faults.fail_at = at;
                faults.for_ever = for_ever;
                faults.code = codes[c] ? codes[c] : EIO;
                faults.cut = codes[c] == 0;
                dp_status status = faults_run(&env, path, to);
                faults.on = 0;
                int done = faults.calls < at;
                CHECK(status != DP_OK || strcmp(to, "new content") == 0);
                CHECK_INT(status == DP_OK, faults.fatal == 0);
                CHECK_INT(faults.live, 0);
                CHECK_INT(faults.fds, 0);
                long n = files_read(&env, dir, "f", to);
                CHECK(n == 3 ? strcmp(to, "old") == 0 : n == 11 && strcmp(to, "new content") == 0);
                if (status == DP_OK) CHECK_INT(n, 11);
                CHECK_INT(files_count(path, ".tmp-", 1), faults.unlinks_failed ? 1 : 0);
                env.io.close_dir(env.io.ctx, dir);
                if (done) break;
                points++;
                cut_points += faults.cut;
            }
        }
    }
    printf("    %d points (%d with short reads and writes), lost data 0\n", points, cut_points);
    CHECK(points > 200 && cut_points > 20);
    files_drop(path);
}

/* The order of the calls: what a power cut can lose is decided by it. */
static void test_file_order(void) {
    char     path[64], to[32];
    dp_env   env;
    void    *dir = NULL, *file = NULL;
    dp_error err;
    files_new(path);
    files_env(&env, 0);
    memset(&faults, 0, sizeof faults);
    faults.on = 1;
    CHECK(faults_run(&env, path, to) == DP_OK);
    CHECK_TEXT(faults.log, "cwfCrD");
    memset(&faults, 0, sizeof faults);
    faults.on = 1;
    CHECK(dp__dir_open(&env, path, 0, &dir, &err) == DP_OK);
    CHECK(env.io.remove(env.io.ctx, dir, "f") == DP_OK);
    CHECK(env.io.create(env.io.ctx, dir, "g", &file) == DP_OK);
    env.io.abort(env.io.ctx, file);
    env.io.close_dir(env.io.ctx, dir);
    faults.on = 0;
    CHECK_TEXT(faults.log, "uDcuC");
    files_drop(path);
}

/* EINTR in write, pread and the creation is no error, and a stale temporary file of the same name
 * is stepped over. */
static void test_file_interrupted(void) {
    char   path[64], to[32];
    dp_env env;
    int    fine = 0;
    files_new(path);
    files_env(&env, 0);
    for (int at = 1; at < 60; at++) {
        memset(&faults, 0, sizeof faults);
        faults.on = 1;
        faults.fail_at = at / 2 + 1;
        faults.code = at % 2 ? EINTR : EEXIST;
        dp_status status = faults_run(&env, path, to);
        if (faults.calls < faults.fail_at) continue;
        if (at % 2) CHECK_INT(status == DP_OK, faults.fatal == 0);
        fine += status == DP_OK;
    }
    faults.on = 0;
    CHECK(fine >= 7); /* EINTR: creation, write, pread, two harmless closes; EEXIST: mkdir, ... */
    files_drop(path);
}

/* ---- environment -------------------------------------------------------------------------- */

static void test_env_checks(void) {
    dp_env   in, out;
    dp_error err;
    CHECK(dp__env_init(NULL, &out, &err) == DP_OK && out.threads == 1);
    CHECK(out.struct_size == sizeof out && out.alloc.alloc && out.io.open && out.io.free_space);
    DP_CLEAR(in);
    CHECK(dp__env_init(&in, &out, &err) == DP_OK);
    in.struct_size = sizeof in + 1;
    CHECK(dp__env_init(&in, &out, &err) == DP_E_ARG);
    in.struct_size = 0;
    CHECK(dp__env_init(&in, &out, &err) == DP_E_ARG);
    in.struct_size = offsetof(dp_env, isa_cap); /* an older caller: the rest is the default */
    in.threads = 77;
    CHECK(dp__env_init(&in, &out, &err) == DP_OK && out.threads == 1);
    for (int more = -1; more <= 1; more++) {
        DP_CLEAR(in);
        in.threads = DP_MAX_THREADS + more;
        CHECK_INT(dp__env_init(&in, &out, &err), more > 0 ? DP_E_LIMIT : DP_OK);
    }
    in.threads = -1;
    CHECK(dp__env_init(&in, &out, &err) == DP_E_LIMIT);
    DP_CLEAR(in);
    in.isa_cap = DP_ISA_COUNT;
    CHECK(dp__env_init(&in, &out, &err) == DP_E_ARG);
    DP_CLEAR(in);
    in.alloc.alloc = test_heap_alloc;
    CHECK(dp__env_init(&in, &out, &err) == DP_E_ARG);
    in.alloc.free = test_heap_free;
    CHECK(dp__env_init(&in, &out, &err) == DP_OK && out.alloc.alloc == test_heap_alloc);
    dp_io full = out.io;
    for (int hook = 0; hook < 11; hook++) { /* each hook alone is missed */
        in.io = full;
        memset((char *)&in.io + (size_t)hook * sizeof(void (*)(void)), 0, sizeof(void (*)(void)));
        CHECK(dp__env_init(&in, &out, &err) == DP_E_ARG);
        CHECK(strstr(err.text, "dp_env.io") != NULL);
    }
}

static const test tests_base[] = {
    {"size_triples", test_size_triples},
    {"platform_not_fused", test_platform_not_fused},
    {"platform_sizes", test_platform_sizes},
    {"mem_arena", test_mem_arena},
    {"mem_buffer", test_mem_buffer},
    {"text_sentences", test_text_sentences},
    {"number_read_hard", test_number_read_hard},
    {"number_round_trip", test_number_round_trip},
    {"number_text", test_number_text},
    {"number_u64", test_number_u64},
    {"rng_values", test_rng_values},
    {"rng_shuffle", test_rng_shuffle},
    {"sort_all", test_sort_all},
    {"sha256_vectors", test_sha256_vectors},
    {"file_round_trip", test_file_round_trip},
    {"file_odd", test_file_odd},
    {"file_names", test_file_names},
    {"file_faults", test_file_faults},
    {"file_order", test_file_order},
    {"file_interrupted", test_file_interrupted},
    {"env_checks", test_env_checks},
};
