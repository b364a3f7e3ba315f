/* test_parse.c -- tests of part C. Every table row names the rule that must speak and the byte it
 * must name; the mutants of tests/mutants/parse.txt take the checks out one by one. */

#include "memory_io.h"
#include "reference_json.h"

/* ---- JSON --------------------------------------------------------------------------------- */

typedef struct json_case {
    const char *text, *rule; /* rule NULL: accepted */
    long        place;
} json_case;

static const json_case json_cases[] = {
    {"0", NULL, 0}, {"-0", NULL, 0}, {"-0.0e-0", NULL, 0}, {"1e5", NULL, 0}, {"1E+5", NULL, 0},
    {"123.456e-789", NULL, 0}, {"1e400", NULL, 0}, {"0.1e-999999999", NULL, 0}, {"null", NULL, 0},
    {"true", NULL, 0}, {"false", NULL, 0}, {"\"\"", NULL, 0}, {"[]", NULL, 0}, {"{}", NULL, 0},
    {" \t\r\n[ \t\r\n] \t\r\n", NULL, 0}, {"{\"\":0}", NULL, 0}, {"[[],[[]],{}]", NULL, 0},
    {"{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":2}]}", NULL, 0},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"", NULL, 0},
    {"\"\\ud800\"", NULL, 0}, {"\"\\udc00x\"", NULL, 0}, {"\"\\ud800\\ud800\\udc00\"", NULL, 0},
    {"\"\\u0000\"", NULL, 0}, {"\"\x7f\xc2\x80\xdf\xbf\"", NULL, 0},
    {"\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"", NULL, 0},
    {"\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"", NULL, 0},
    {"1234567890123456789012345678901234567890123456789012345678901234", NULL, 0},
    {"12345678901234567890123456789012345678901234567890123456789012345", "J6", 0},
    {"", "J1", 0}, {" ", "J1", 1}, {"\xef\xbb\xbf[]", "J1", 0}, {"x", "J1", 0}, {"nul", "J1", 3},
    {"nulL", "J1", 3}, {"truE", "J1", 3}, {"falsy", "J1", 4}, {"True", "J1", 0}, {"NaN", "J1", 0},
    {"Infinity", "J1", 0}, {"+1", "J1", 0}, {".5", "J1", 0}, {"'a'", "J1", 0}, {"/**/1", "J1", 0},
    {"\f1", "J1", 0}, {"\xc2\xa0" "1", "J1", 0},
    {"[", "J1", 1}, {"[1", "J1", 2}, {"[1,", "J1", 3}, {"[1,]", "J1", 3}, {"[,1]", "J1", 1},
    {"[1,,2]", "J1", 3}, {"[1 2]", "J1", 3}, {"[1}", "J1", 2}, {"]", "J1", 0}, {"}", "J1", 0},
    {"{", "J1", 1}, {"{\"a\"", "J1", 4}, {"{\"a\" 1}", "J1", 5}, {"{\"a\":", "J1", 5},
    {"{\"a\":}", "J1", 5}, {"{\"a\":1", "J1", 6}, {"{\"a\":1,", "J1", 7}, {"{\"a\":1,}", "J1", 7},
    {"{\"a\":1]", "J1", 6}, {"{1:2}", "J1", 1}, {"{a:2}", "J1", 1}, {"{,}", "J1", 1},
    {"{\"a\":1 \"b\":2}", "J1", 7}, {"{null:1}", "J1", 1}, {"{\"a\"::1}", "J1", 5},
    {"\"", "J1", 1}, {"\"a", "J1", 2}, {"\"\\\"", "J1", 3}, {"\"\\x\"", "J1", 1},
    {"\"\\u12g4\"", "J1", 1}, {"\"\\u123\"", "J1", 1}, {"\"\\u\"", "J1", 1}, {"\"\\", "J1", 1},
    {"\"\n\"", "J1", 1}, {"\"a\tb\"", "J1", 2}, {"\"\x1f\"", "J1", 1}, {"\"\\U0041\"", "J1", 1},
    {"\"\\ud800\\u\"", "J1", 7}, {"\"\\ud800\\ux\"", "J1", 7},
    {"\"\x80\"", "J1", 1}, {"\"\xc0\x80\"", "J1", 1}, {"\"\xc1\xbf\"", "J1", 1},
    {"\"\xc3\"", "J1", 1}, {"\"\xc3(\"", "J1", 1}, {"\"\xe0\x9f\xbf\"", "J1", 1},
    {"\"\xed\xa0\x80\"", "J1", 1}, {"\"\xf0\x8f\xbf\xbf\"", "J1", 1},
    {"\"\xf4\x90\x80\x80\"", "J1", 1}, {"\"\xf5\x80\x80\x80\"", "J1", 1},
    {"\"\xe2\x82\"", "J1", 1}, {"\"\xe2\x82(\"", "J1", 1}, {"\"\xf0\x9f\x98\"", "J1", 1},
    {"\"\xff\"", "J1", 1}, {"\"\xfe\"", "J1", 1}, {"\"ab\xf0\x9f(\x80\"", "J1", 3},
    {"{\"a\":1,\"a\":2}", "J2", 8}, {"{\"a\":1,\"\\u0061\":2}", "J2", 8},
    {"[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]", "J2", 20}, {"{\"\":1,\"\":1}", "J2", 7},
    {"{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", "J2", 19},
    {"{\"a\\u00e9\":1,\"a\\u00E9\":2}", "J2", 14}, {"{\"\xc3\xa9\":1,\"\xc3\xa8\":2}", NULL, 0},
    {"{\"\\ud800\":1}", "J3", 2}, {"{\"a\\udfff\":1}", "J3", 3}, {"{\"\\u0000\":1}", "J3", 2},
    {"1 2", "J5", 2}, {"[] x", "J5", 3}, {"{}}", "J5", 2}, {"[]]", "J5", 2}, {"nullx", "J5", 4},
    {"[truenull]", "J1", 5},
    {"\"a\"\"b\"", "J5", 3}, {"1,", "J5", 1}, {"01", "J5", 1}, {"-01", "J5", 2},
    {"-", "J6", 1}, {"1.", "J6", 2}, {"1.e1", "J6", 2}, {"1e", "J6", 2}, {"1e+", "J6", 3},
    {"-x", "J6", 1}, {"--1", "J6", 1}, {"[1.]", "J6", 3}, {"-.5", "J6", 1}, {"0e", "J6", 2},
    {"0x1", "J5", 1}, {"1.5.5", "J5", 3}, {"1_000", "J5", 1}, {"-Infinity", "J6", 1},
};

static dp_alloc test_alloc(test_heap *heap) {
    dp_alloc alloc = {test_heap_alloc, test_heap_free, heap};
    return alloc;
}

/* Verdict of the whole check on text that touches a closed page. */
static dp_status json_check(const char *text, size_t bytes, dp_error *err) {
    test_heap heap;
    memset(&heap, 0, sizeof heap);
    dp_alloc alloc = test_alloc(&heap);
    guarded  g = guarded_new(bytes);
    if (bytes > 0) memcpy(g.p, text, bytes);
    dp__arena arena;
    dp__arena_init(&arena, &alloc);
    dp__doc d = dp__doc_new(&arena, "t.json", err);
    dp__json_begin(&d.json, (const char *)g.p, bytes);
    dp_status status = dp__doc_check(&d);
    CHECK_INT(heap.live_bytes, 0);
    CHECK(heap.peak_bytes <= 16 * bytes + (bytes == 0)); /* nothing, of size 1 */
    guarded_free(&g);
    return status;
}

static void check_error(const char *what, const dp_error *err, dp_status status, dp_status code,
                        const char *rule, uint64_t place) {
    if (status == code && (status == DP_OK ||
        (err->code == code && strcmp(err->rule, rule) == 0 && err->place == place))) return;
    printf("    %s: got %d %s %lld, expected %d %s %lld (%s)\n", what, (int)status,
           status ? err->rule : "", (long long)err->place, (int)code, rule, (long long)place,
           status ? err->text : "");
    FAIL("verdict, rule and place");
}

static void test_json_cases(void) {
    size_t n = sizeof json_cases / sizeof *json_cases, bad = 0;
    for (size_t i = 0; i < n; i++) {
        const json_case *c = json_cases + i;
        dp_error  err;
        dp_status code = c->rule == NULL ? DP_OK : strstr(c->text, "123456789012345") ? DP_E_LIMIT
                                                                                   : DP_E_FORMAT;
        dp_status status = json_check(c->text, strlen(c->text), &err);
        check_error(c->text, &err, status, code, c->rule ? c->rule : "", (uint64_t)c->place);
        ref *tree = ref_parse(c->text, strlen(c->text));
        CHECK((tree != NULL) == (c->rule == NULL)); /* the reference reader is of one mind */
        ref_free(tree);
        bad += c->rule != NULL;
    }
    dp_error err;
    check_error("NUL", &err, json_check("[\0]", 3, &err), DP_E_FORMAT, "J1", 1);
    check_error("NUL in a word", &err, json_check("nul\0", 4, &err), DP_E_FORMAT, "J1", 3);
    check_error("NUL escape", &err, json_check("\"\\\0\"", 4, &err), DP_E_FORMAT, "J1", 1);
    check_error("NUL number", &err, json_check("1\0", 2, &err), DP_E_FORMAT, "J5", 1);
    printf("    %zu accepted, %zu refused\n", n - bad, bad + 4);
}

/* One digest of a document for our parser and for the tree of the reference. */
static uint64_t json_mix(uint64_t h, char kind, const char *text, size_t bytes) {
    h = (h ^ (unsigned char)kind) * 0x100000001B3u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001B3u;
    return (h ^ bytes) * 0x100000001B3u;
}

static uint64_t json_digest_ref(uint64_t h, const ref *r) {
    for (; r != NULL; r = r->next) {
        if (r->key != NULL) h = json_mix(h, 'k', r->key, r->key_bytes);
        h = json_mix(h, r->kind, r->text, r->kind == 's' || r->kind == 'n' ? r->bytes : 0);
        if (r->kind != '{' && r->kind != '[') continue;
        h = json_digest_ref(h, r->child);
        h = json_mix(h, r->kind == '{' ? '}' : ']', NULL, 0);
    }
    return h;
}

static int json_digest(const char *text, size_t bytes, uint64_t *digest) {
    static const char kinds[] = {'e', '{', '}', '[', ']', 'k', 's', 'n', 't', 'f', '0'};
    dp_json json;
    dp_error err;
    char   *buffer = (char *)malloc(bytes + 1);
    *digest = 0;
    dp_json_begin(&json, text, bytes);
    for (;;) {
        if (dp_json_next(&json, &err) != DP_OK) {
            free(buffer);
            return 0;
        }
        if (json.kind == DP_JSON_END) break;
        size_t n = 0;
        if (json.kind == DP_JSON_KEY || json.kind == DP_JSON_STRING) {
            CHECK(dp_json_string(&json, buffer, bytes + 1, &n, &err) == DP_OK);
            *digest = json_mix(*digest, kinds[json.kind], buffer, n);
        } else if (json.kind == DP_JSON_NUMBER) {
            *digest = json_mix(*digest, 'n', text + json.token, json.length);
        } else {
            *digest = json_mix(*digest, kinds[json.kind], NULL, 0);
        }
    }
    free(buffer);
    return 1;
}

/* Our verdict and content against the reference's; returns the verdict. */
static int json_compare(const char *text, size_t bytes) {
    dp_error err;
    uint64_t ours = 0;
    ref     *tree = ref_parse(text, bytes);
    int      ok = json_check(text, bytes, &err) == DP_OK;
    CHECK_INT(ok, tree != NULL);
    if (ok && tree) CHECK(json_digest(text, bytes, &ours) && ours == json_digest_ref(0, tree));
    ref_free(tree);
    return ok;
}

static const char json_crafted[] =
    "{\"name\": \"\\u00e9\\ud83d\\ude00 \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\", \"list\": [1, "
    "-2.5e-3, 0, true, false, null, \"\\\"\\\\\", {}, []], \"deep\": {\"a\": {\"b\": [[[\"x\"]]]}, "
    "\"e\\n\": 1E+2},\t\"z\":\"\\ud800\"}\r\n";

static void test_json_flips(void) {
    char   text[sizeof json_crafted];
    size_t n = sizeof json_crafted - 1, same = 0, refused = 0;
    for (size_t cut = 0; cut < n; cut++) refused += !json_compare(json_crafted, cut);
    printf("    truncations: %zu refused, %zu accepted\n", refused, n - refused);
    CHECK_INT(refused, n - 2); /* without the line end the document is whole */
    refused = 0;
    for (size_t i = 0; i < n * 8; i++) {
        memcpy(text, json_crafted, n);
        text[i / 8] = (char)(text[i / 8] ^ 1 << i % 8);
        if (json_compare(text, n)) same++;
        else refused++;
    }
    printf("    bit flips: %zu refused, %zu accepted with the reference's content\n", refused,
           same);
    CHECK(refused > 800 && same > 100);
}

static void test_json_values(void) {
    static const char text[] = "[12, -7, 1.5, 9223372036854775807, -9223372036854775808, "
                               "9223372036854775808, -0, 1e2, \"ab\\u0000c\", 1e999]";
    static const int64_t ints[] = {12, -7, 0, INT64_MAX, INT64_MIN, 0, 0, 0};
    static const int     good[] = {1, 1, 0, 1, 1, 0, 0, 0};
    dp_json  json;
    dp_error err;
    int64_t  v;
    double   d = 3;
    char     to[8];
    size_t   n;
    dp_json_begin(&json, text, sizeof text - 1);
    CHECK(dp_json_next(&json, &err) == DP_OK && json.kind == DP_JSON_ARRAY);
    for (int i = 0; i < 8; i++) {
        v = 99;
        CHECK(dp_json_next(&json, &err) == DP_OK);
        CHECK_INT(dp_json_integer(&json, INT64_MIN, INT64_MAX, &v, &err) == DP_OK, good[i]);
        CHECK_INT(v, good[i] ? ints[i] : 99);
        if (i == 0) {
            CHECK(dp_json_integer(&json, 12, 12, &v, &err) == DP_OK);
            CHECK(dp_json_integer(&json, 13, 20, &v, &err) == DP_E_FORMAT);
            CHECK(dp_json_integer(&json, 0, 11, &v, &err) == DP_E_FORMAT);
            CHECK(dp_json_string(&json, to, sizeof to, &n, &err) == DP_E_FORMAT && n == 0);
        }
        if (i == 2) CHECK(dp_json_real(&json, &d, &err) == DP_OK && d == 1.5);
    }
    CHECK(dp_json_next(&json, &err) == DP_OK && json.kind == DP_JSON_STRING);
    memset(to, 'x', sizeof to);
    CHECK(dp_json_string(&json, to, 4, &n, &err) == DP_E_SPACE && n == 4 && to[4] == 'x');
    CHECK(dp_json_string(&json, to, 5, &n, &err) == DP_OK && memcmp(to, "ab\0c\0x", 6) == 0);
    CHECK(dp_json_string(&json, NULL, 0, &n, &err) == DP_E_SPACE && n == 4);
    CHECK(dp_json_string(&json, to, 5, NULL, NULL) == DP_OK);
    CHECK(dp_json_next(&json, &err) == DP_OK);
    d = 3;
    CHECK(dp_json_real(&json, &d, &err) == DP_E_FORMAT && d == 3 && strcmp(err.rule, "J6") == 0);
    for (int skip = 0; skip < 2; skip++) { /* an error is final */
        dp_json_begin(&json, "[1.]", 4);
        CHECK(dp_json_next(&json, &err) == DP_OK);
        CHECK((skip ? dp_json_skip(&json, &err) : dp_json_next(&json, &err)) == DP_E_FORMAT);
        CHECK_TEXT(err.rule, "J6");
        for (int i = 0; i < 3; i++) CHECK(dp_json_next(&json, &err) == DP_E_FORMAT);
    }
}

static void test_json_skip(void) {
    static const char text[] = "{\"a\":{\"x\":[1,{\"y\":2}]},\"b\":3,\"c\":[[],{}],\"d\":4}";
    dp_json  json;
    dp_error err;
    char     keys[8] = "";
    dp_json_begin(&json, text, sizeof text - 1);
    CHECK(dp_json_next(&json, &err) == DP_OK);
    while (dp_json_next(&json, &err) == DP_OK && json.kind == DP_JSON_KEY) {
        strncat(keys, text + json.token, 1);
        CHECK(dp_json_skip(&json, &err) == DP_OK);
    }
    CHECK_TEXT(keys, "abcd");
    CHECK(json.kind == DP_JSON_OBJECT_END && dp_json_next(&json, &err) == DP_OK);
    CHECK(json.kind == DP_JSON_END && dp_json_next(&json, &err) == DP_OK);
    dp_json_begin(&json, "[[[", 3);
    CHECK(dp_json_next(&json, &err) == DP_OK && dp_json_skip(&json, &err) == DP_E_FORMAT);
}

/* L - 1, L, L + 1 of depth, members, string, number. */
static void test_json_limits(void) {
    dp_error err;
    size_t   most = (size_t)DP_MAX_JSON_MEMBERS > (size_t)DP_MAX_JSON_STRING
                        ? DP_MAX_JSON_MEMBERS : DP_MAX_JSON_STRING;
    char    *text = (char *)malloc(2 * most + 100);
    for (int more = -1; more <= 1; more++) {
        size_t    n = (size_t)(DP_MAX_JSON_DEPTH + more);
        dp_status want = more > 0 ? DP_E_LIMIT : DP_OK;
        memset(text, '[', n);
        memset(text + n, ']', n);
        check_error("depth", &err, json_check(text, 2 * n, &err), want, "J4", DP_MAX_JSON_DEPTH);
        n = (size_t)DP_MAX_JSON_STRING + (size_t)(more + 1) - 1;
        memset(text, 'a', n + 2);
        text[0] = text[n + 1] = '"';
        check_error("string", &err, json_check(text, n + 2, &err), want, "J4", 1);
        n = (size_t)DP_MAX_JSON_MEMBERS + (size_t)(more + 1) - 1;
        for (size_t i = 0; i < n; i++) memcpy(text + 2 * i, ",0", 2);
        text[0] = '[';
        text[2 * n] = ']';
        check_error("members", &err, json_check(text, 2 * n + 1, &err), want, "J4",
                    2 * (size_t)DP_MAX_JSON_MEMBERS + 1);
        n = (size_t)DP_MAX_JSON_NUMBER + (size_t)(more + 1) - 1;
        memset(text, '1', n);
        check_error("number", &err, json_check(text, n, &err), want, "J6", 0);
    }
    free(text);
}

static void test_json_memory(void) {
    for (size_t at = 1; at <= 2; at++) {
        test_heap heap;
        memset(&heap, 0, sizeof heap);
        heap.fail_at = at;
        dp_alloc  alloc = test_alloc(&heap);
        dp_error  err;
        dp__arena arena;
        dp__arena_init(&arena, &alloc);
        dp__doc d = dp__doc_new(&arena, "t", &err);
        dp__json_begin(&d.json, "{\"a\":1}", 7);
        dp_status status = dp__doc_check(&d);
        CHECK_INT(status, at == 1 ? DP_E_MEMORY : DP_OK);
        CHECK_INT(heap.live_bytes, 0);
    }
}

/* Hostile names: equal but for the last byte, in sorted, reversed and equal order. */
static void test_json_linear(void) {
    double seconds[2];
    for (int k = 0; k < 2; k++) {
        size_t   n = (size_t)20000 << k, at = 1;
        char    *text = (char *)malloc(n * 24);
        dp_error err;
        text[0] = '{';
        for (size_t i = 0; i < n; i++)
            at += (size_t)snprintf(text + at, 24, "\"aaaaaa%08zu\":0%c", i * 7919 % n,
                                   i + 1 < n ? ',' : '}');
        double start = test_seconds();
        CHECK(json_check(text, at, &err) == DP_OK);
        seconds[k] = test_seconds() - start;
        free(text);
    }
    CHECK(seconds[1] < 8 * seconds[0] + 0.05); /* n log n, with room for a busy machine */
}

static void test_json_writer(void) {
    static const char raw[] = "a\"\\\n\x01\x7f\xc3\xa9\xe2\x80\xa8\xe2\x80\xa9\xff\xf0\x9f\x98\x80"
                              "\xc3";
    dp_alloc   alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__buffer out;
    dp__buffer_init(&out, &alloc);
    dp__put_string(&out, raw, sizeof raw - 1);
    dp__put_text(&out, " ");
    dp__put_u64(&out, UINT64_MAX);
    dp__put_text(&out, " ");
    dp__put_real(&out, 0.1f);
    dp__put_text(&out, " ");
    dp__put_real(&out, HUGE_VALF);
    dp__buffer_add(&out, "", 1);
    CHECK(!out.failed);
    CHECK_TEXT(out.p, "\"a\\\"\\\\\\u000a\\u0001\\u007f\xc3\xa9\\u2028\\u2029\xef\xbf\xbd"
                      "\xf0\x9f\x98\x80\xef\xbf\xbd\" 18446744073709551615 0.1 null");
    dp__buffer_free(&out);
}

static void test_byte_order(void) {
    uint8_t  bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t word;
    CHECK(dp__load_le(bytes, 8) == 0x0807060504030201u && dp__load_le(bytes + 5, 3) == 0x080706u);
    dp__store_le(bytes, 4, 0x01020304u);
    CHECK(bytes[0] == 4 && bytes[3] == 1 && bytes[4] == 5 && dp__load_le(bytes, 4) == 0x01020304u);
    memcpy(&word, bytes, 4);
    dp__swap_le(&word, 1, 4);
    CHECK_INT(word, 0x01020304u); /* little-endian bytes as a number of this machine */
}

/* Bytes of the character at p, 0: none. */
static size_t utf8_bytes(const char *p, size_t n) {
    uint32_t c;
    size_t   bad = 0, bytes = dp__utf8_get((const uint8_t *)p, n, &c, &bad);
    return bad ? 0 : bytes;
}

static void test_utf8_all(void) {
    char to[4], cut[4];
    size_t good = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        size_t n = dp__utf8_put(to, c);
        good += utf8_bytes(to, n) == n && (n == 1 || utf8_bytes(to, n - 1) == 0);
    }
    CHECK_INT(good, 0x110000 - 0x800);
    size_t valid = 0; /* all pairs and triples of bytes that can begin a character */
    for (uint32_t b = 0; b < 1u << 24; b += test_long() ? 1 : 7) {
        for (int i = 0; i < 3; i++) cut[i] = (char)(b >> (16 - 8 * i));
        ref_in in = {(const unsigned char *)cut, 3, 0, 0, 0};
        size_t n = 1;
        int    ok = (unsigned char)cut[0] < 128 || ref_utf8(&in, to, &n);
        if ((unsigned char)cut[0] >= 0xF0) ok = 0;
        valid += utf8_bytes(cut, 3) == (ok ? n : 0);
    }
    CHECK_INT(valid, test_long() ? 1 << 24 : (1 << 24) / 7 + 1);
}

/* ---- safetensors -------------------------------------------------------------------------- */

/* A store over files in memory with a counting heap; everything is checked to be given back. */
typedef struct st_bench {
    memory_dir *m;
    test_heap   heap;
    dp_env      env;
    dp__arena   arena;
    dp__store   store;
    dp_error    err;
} st_bench;

static void st_setup(st_bench *b) {
    dp_env in;
    memset(b, 0, sizeof *b);
    b->m = memory_new();
    DP_CLEAR(in);
    memory_io(b->m, &in.io);
    in.alloc = test_alloc(&b->heap);
    CHECK(dp__env_init(&in, &b->env, &b->err) == DP_OK);
}

static dp_status st_open(st_bench *b) {
    dp__arena_init(&b->arena, &b->env.alloc);
    dp_status status = dp__store_open(&b->store, &b->env, b->m, &b->arena, &b->err);
    if (status != DP_OK) CHECK(b->store.entries == NULL && b->store.file_count == 0);
    return status;
}

static void st_shut(st_bench *b) {
    dp__store_close(&b->store);
    dp__arena_free(&b->arena);
    CHECK_INT(b->heap.live_bytes, 0);
    CHECK_INT(b->m->opened, b->m->closed);
}

static void st_done(st_bench *b) {
    memory_free(b->m);
}

/* length, header, data bytes that count up; the caller frees. */
static char *st_make(const char *header, size_t n, size_t data, size_t *bytes) {
    char *p = (char *)malloc(8 + n + data + 1);
    dp__store_le((uint8_t *)p, 8, n);
    memcpy(p + 8, header, n);
    for (size_t i = 0; i < data; i++) p[8 + n + i] = (char)(i + 1);
    *bytes = 8 + n + data;
    return p;
}

typedef struct st_case {
    const char *header;
    size_t      data;
    dp_status   code;
    const char *rule;
    long        place; /* in the header; -1: DP_NO_PLACE */
} st_case;

#define T(body) "{\"a\":{" body "}}"
#define TD(dtype, shape, offsets) \
    T("\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets)
static const st_case st_cases[] = {
    {"{}", 0, DP_OK, "", 0},
    {"{}      ", 0, DP_OK, "", 0},
    {"{\"__metadata__\":{}}", 0, DP_OK, "", 0},
    {"{\"__metadata__\":{\"format\":\"pt\",\"b\":\"\"}}", 0, DP_OK, "", 0},
    {TD("F32", "[]", "[0,4]"), 4, DP_OK, "", 0},
    {TD("F32", "[0,9223372036854775807]", "[0,0]"), 0, DP_E_LIMIT, "S7", 31},
    {TD("F32", "[0,2147483647]", "[0,0]"), 0, DP_OK, "", 0},
    {TD("F32", "[2147483647,2147483647,2147483647,0]", "[0,0]"), 0, DP_OK, "", 0},
    {TD("BOOL", "[3]", "[0,3]"), 3, DP_OK, "", 0},
    {TD("F4", "[4]", "[0,2]"), 2, DP_OK, "", 0},
    {TD("F6_E2M3", "[4]", "[0,3]"), 3, DP_OK, "", 0},
    {TD("F6_E3M2", "[4]", "[0,3]"), 3, DP_OK, "", 0},
    {TD("F8_E5M2", "[1]", "[0,1]"), 1, DP_OK, "", 0},
    {TD("F8_E4M3", "[1]", "[0,1]"), 1, DP_OK, "", 0},
    {TD("F8_E8M0", "[1]", "[0,1]"), 1, DP_OK, "", 0},
    {TD("F8_E4M3FNUZ", "[1]", "[0,1]"), 1, DP_OK, "", 0},
    {TD("F8_E5M2FNUZ", "[1]", "[0,1]"), 1, DP_OK, "", 0},
    {TD("I16", "[1]", "[0,2]"), 2, DP_OK, "", 0},
    {TD("U16", "[1]", "[0,2]"), 2, DP_OK, "", 0},
    {TD("U32", "[1]", "[0,4]"), 4, DP_OK, "", 0},
    {TD("U64", "[1]", "[0,8]"), 8, DP_OK, "", 0},
    {TD("C64", "[1]", "[0,8]"), 8, DP_OK, "", 0},
    {T("\"data_offsets\":[0,2],\"shape\":[1],\"dtype\":\"BF16\""), 2, DP_OK, "", 0},
    {TD("\\u0046\\u0033\\u0032", "[1]", "[0,4]"), 4, DP_OK, "", 0},
    {" {}", 0, DP_E_FORMAT, "S3", 0},
    {"[]", 0, DP_E_FORMAT, "S3", 0},
    {"", 0, DP_E_FORMAT, "S3", 0},
    {"\xef\xbb\xbf{}", 0, DP_E_FORMAT, "S3", 0},
    {"{}\n", 0, DP_E_FORMAT, "S4", 2},
    {"{}  x  ", 0, DP_E_FORMAT, "S4", 4},
    {"{} {}", 0, DP_E_FORMAT, "J5", 3},
    {"{\"a\":1", 0, DP_E_FORMAT, "S4", 5},
    {"{\"__metadata__\":[]}", 0, DP_E_FORMAT, "S5", 16},
    {"{\"__metadata__\":{\"a\":1}}", 0, DP_E_FORMAT, "S5", 21},
    {"{\"__metadata__\":{\"a\":null}}", 0, DP_E_FORMAT, "S5", 21},
    {"{\"__metadata__\":{\"a\":{}}}", 0, DP_E_FORMAT, "S5", 21},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, DP_E_FORMAT, "J2", 20},
    {"{\"a\":1}", 0, DP_E_FORMAT, "S6", 5},
    {"{\"a\":[]}", 0, DP_E_FORMAT, "S6", 5},
    {"{\"a\":{}}", 0, DP_E_FORMAT, "S6", 5},
    {T("\"dtype\":\"F32\",\"shape\":[1]"), 4, DP_E_FORMAT, "S6", 5},
    {T("\"dtype\":\"F32\",\"data_offsets\":[0,4]"), 4, DP_E_FORMAT, "S6", 5},
    {T("\"shape\":[1],\"data_offsets\":[0,4]"), 4, DP_E_FORMAT, "S6", 5},
    {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":0"), 4, DP_E_FORMAT, "S6", 54},
    {T("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, DP_E_FORMAT,
     "J2", 21},
    {T("\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]"), 4, DP_E_FORMAT, "S6", 14},
    {TD("F32", "1", "[0,4]"), 4, DP_E_FORMAT, "S6", 28},
    {TD("F32", "[-1]", "[0,4]"), 4, DP_E_FORMAT, "S6", 29},
    {TD("F32", "[1.0]", "[0,4]"), 4, DP_E_FORMAT, "S6", 29},
    {TD("F32", "[1e0]", "[0,4]"), 4, DP_E_FORMAT, "S6", 29},
    {TD("F32", "[\"1\"]", "[0,4]"), 4, DP_E_FORMAT, "S6", 30},
    {TD("F32", "[9223372036854775808]", "[0,4]"), 4, DP_E_FORMAT, "S6", 29},
    {TD("F32", "[1,null]", "[0,4]"), 4, DP_E_FORMAT, "S6", 31},
    {TD("F32", "[1]", "4"), 4, DP_E_FORMAT, "S6", 47},
    {TD("F32", "[1]", "[0]"), 4, DP_E_FORMAT, "S6", 49},
    {TD("F32", "[1]", "[]"), 4, DP_E_FORMAT, "S6", 48},
    {TD("F32", "[1]", "[0,4,4]"), 4, DP_E_FORMAT, "S6", 52},
    {TD("F32", "[1]", "[-4,0]"), 4, DP_E_FORMAT, "S6", 48},
    {TD("F32", "[1]", "[0,9223372036854775808]"), 4, DP_E_FORMAT, "S6", 50},
    {TD("F32", "[1]", "[0.0,4]"), 4, DP_E_FORMAT, "S6", 48},
    {TD("F32", "[2147483648]", "[0,4]"), 4, DP_E_LIMIT, "S7", 29},
    {TD("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, DP_E_LIMIT, "S7", 45},
    {TD("F32", "[1,1,1,1,1,1,1,1]", "[0,4]"), 4, DP_OK, "", 0},
    {TD("U8", "[65536,65536,65536,65536]", "[0,0]"), 0, DP_E_FORMAT, "S7", 5},
    {TD("F64", "[65536,65536,65536,8192]", "[0,0]"), 0, DP_E_FORMAT, "S7", 5},
    {TD("F64", "[1073741824,1073741824,4]", "[0,0]"), 0, DP_E_FORMAT, "S7", 5},
    {TD("F4", "[3]", "[0,1]"), 1, DP_E_FORMAT, "S8", 5},
    {TD("F4", "[3]", "[0,2]"), 2, DP_E_FORMAT, "S8", 5},
    {TD("F32", "[2]", "[0,4]"), 4, DP_E_FORMAT, "S8", 5},
    {TD("F32", "[1]", "[4,0]"), 4, DP_E_FORMAT, "S8", 5},
    {TD("F32", "[0]", "[1,0]"), 0, DP_E_FORMAT, "S8", 5},
    {TD("F32", "[0]", "[0,1]"), 1, DP_E_FORMAT, "S8", 5},
    {TD("U8", "[4]", "[0,4]"), 3, DP_E_FORMAT, "S9", 53},
    {TD("U8", "[4]", "[0,4]"), 5, DP_E_FORMAT, "S9", 57},
    {TD("U8", "[4]", "[1,5]"), 5, DP_E_FORMAT, "S9", 53},
    {TD("U8", "[4]", "[9223372036854775803,9223372036854775807]"), 5, DP_E_FORMAT, "S9", 89},
    {"{}", 1, DP_E_FORMAT, "S9", 2},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, DP_E_FORMAT, "S9", 107},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 4, DP_E_FORMAT, "S9", 107},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}", 5, DP_E_FORMAT, "S9", 107},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 4, DP_OK, "", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, DP_E_FORMAT, "J2", 54},
    {TD("F33", "[1]", "[0,4]"), 4, DP_E_UNSUPPORTED, "S10", 15},
    {TD("f32", "[1]", "[0,4]"), 4, DP_E_UNSUPPORTED, "S10", 15},
    {TD("", "[1]", "[0,4]"), 4, DP_E_UNSUPPORTED, "S10", 15},
    {TD("F32x", "[1]", "[0,4]"), 4, DP_E_UNSUPPORTED, "S10", 15},
};

static void test_st_cases(void) {
    st_bench b;
    size_t   n = sizeof st_cases / sizeof *st_cases, bad = 0;
    st_setup(&b);
    for (size_t i = 0; i < n; i++) {
        const st_case *c = st_cases + i;
        size_t bytes;
        char  *file = st_make(c->header, strlen(c->header), c->data, &bytes);
        memory_add(b.m, "model.safetensors", file, bytes);
        dp_status status = st_open(&b);
        check_error(c->header, &b.err, status, c->code, c->rule, (uint64_t)c->place + 8);
        bad += status != DP_OK;
        if (status != DP_OK) CHECK_TEXT(b.err.file, "model.safetensors");
        st_shut(&b);
        free(file);
    }
    static const struct {
        const char *bytes;
        size_t      n;
        dp_status   code;
        const char *rule;
        uint64_t    place;
    } raw[] = {
        {"", 0, DP_E_FORMAT, "S1", 0}, {"\2\0\0\0\0\0\0", 7, DP_E_FORMAT, "S1", 7},
        {"\0\0\0\0\0\0\0\0", 8, DP_E_FORMAT, "S3", 8},
        {"\3\0\0\0\0\0\0\0{}", 10, DP_E_FORMAT, "S2", 0},
        {"\377\377\377\377\377\377\377\377{}", 10, DP_E_LIMIT, "S2", 0},
        {"\370\377\377\377\377\377\377\377{}", 10, DP_E_LIMIT, "S2", 0},
        {"\2\0\0\0\0\0\0\200{}", 10, DP_E_LIMIT, "S2", 0},
        {"\1\0\0\0\0\0\0\0{}", 10, DP_E_FORMAT, "S4", 8},
    };
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        memory_add(b.m, "model.safetensors", raw[i].bytes, raw[i].n);
        check_error("raw", &b.err, st_open(&b), raw[i].code, raw[i].rule, raw[i].place);
        st_shut(&b);
        bad++;
    }
    printf("    %zu accepted, %zu refused\n", n + 8 - bad, bad);
    st_done(&b);
}

/* What a file should hold, from the tree of the reference reader: 1 and a digest, or 0. The rules
 * are written down a second time here, over the tree and for small numbers only (the crafted file
 * has few bytes: whatever is above 10^6 cannot be right, unless the tensor is empty). */
typedef struct st_seen {
    const char *name, *dtype;
    uint64_t    shape[8], begin, end;
    int         dims;
} st_seen;

static int st_number(const ref *r, uint64_t *v) {
    if (r->kind != 'n' || strspn(r->text, "0123456789") != r->bytes) return 0;
    *v = strtoull(r->text, NULL, 10);
    return r->bytes < 19;
}

static int st_see(const ref *r, st_seen *s) {
    static const char *const dtypes[] = {"F32", "F16", "BF16", "I8", "U8", "F64", "I32", "I64",
                                         "BOOL", "U32", "U64", "U16", "I16", "F4", "C64"};
    static const unsigned bits[] = {32, 16, 16, 8, 8, 64, 32, 64, 8, 32, 64, 16, 16, 4, 64};
    const ref *dtype = ref_get(r, "dtype"), *shape = ref_get(r, "shape");
    const ref *offsets = ref_get(r, "data_offsets");
    uint64_t   count = 1;
    unsigned   width = 0;
    if (r->kind != '{' || ref_count(r) != 3 || !dtype || !shape || !offsets) return 0;
    if (dtype->kind != 's' || shape->kind != '[' || offsets->kind != '[') return 0;
    for (int i = 0; i < 15; i++) if (strcmp(dtype->text, dtypes[i]) == 0) width = bits[i];
    if (width == 0 || ref_count(offsets) != 2 || ref_count(shape) > 8) return 0;
    s->name = r->key;
    s->dtype = dtype->text;
    s->dims = 0;
    for (const ref *d = shape->child; d != NULL; d = d->next) {
        if (!st_number(d, &s->shape[s->dims]) || s->shape[s->dims] > 2147483647u) return 0;
        count = count == 0 || s->shape[s->dims] == 0 ? 0 : count > 1000000 ? count
              : count * s->shape[s->dims];
        s->dims++;
    }
    if (!st_number(offsets->child, &s->begin)) return 0;
    if (!st_number(offsets->child->next, &s->end)) return 0;
    return s->end >= s->begin && count * width % 8 == 0 && count * width / 8 == s->end - s->begin;
}

static int st_compare_seen(const void *a, const void *b) {
    const st_seen *x = (const st_seen *)a, *y = (const st_seen *)b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1)
         : x->end != y->end ? (x->end < y->end ? -1 : 1) : 0;
}

/* The tensors of a file that keeps all rules, in order of place; -1: it does not. */
static int st_reference(const unsigned char *p, size_t bytes, st_seen *seen, ref **tree) {
    uint64_t n = 0, end = 0;
    int      count = 0;
    *tree = NULL;
    if (bytes < 8) return -1;
    for (int i = 7; i >= 0; i--) n = n << 8 | p[i];
    if (n > bytes - 8 || n == 0 || p[8] != '{') return -1;
    uint64_t last = n;
    while (last > 0 && p[7 + last] == ' ') last--;
    if (p[7 + last] != '}') return -1;
    *tree = ref_parse(p + 8, (size_t)n);
    if (*tree == NULL) return -1;
    for (const ref *r = (*tree)->child; r != NULL; r = r->next) {
        if (r->key_bytes == 12 && memcmp(r->key, "__metadata__", 12) == 0) {
            if (r->kind != '{') return -1;
            for (const ref *v = r->child; v; v = v->next) if (v->kind != 's') return -1;
        } else if (!st_see(r, seen + count++)) {
            return -1;
        }
    }
    qsort(seen, (size_t)count, sizeof *seen, st_compare_seen);
    for (int i = 0; i < count; i++) {
        if (seen[i].begin != end) return -1;
        end = seen[i].end;
    }
    return end == bytes - 8 - n ? count : -1;
}

/* The bytes of each number, from this machine's order to the file's or back. */
static void st_turn(char *raw, size_t bytes, size_t size) {
    for (size_t i = 0; DP__BIG_ENDIAN && i < bytes; i += size)
        for (size_t j = 0; j < size / 2; j++) {
            char c = raw[i + j];
            raw[i + j] = raw[i + size - 1 - j];
            raw[i + size - 1 - j] = c;
        }
}

/* Our reader on the bytes against the reference: same verdict, same tensors, same data. */
static int st_compare(st_bench *b, char *file, size_t bytes) {
    st_seen  seen[16];
    ref     *tree;
    int      want = st_reference((unsigned char *)file, bytes, seen, &tree);
    memory_add(b->m, "model.safetensors", file, bytes);
    dp_status status = st_open(b);
    CHECK_INT(status == DP_OK, want >= 0);
    if (status != DP_OK) CHECK(b->err.code == status && b->err.rule[0] != 0);
    if (status == DP_OK && want >= 0) CHECK_INT(b->store.count, want);
    for (int i = 0; status == DP_OK && i < want; i++) {
        const dp__entry *e = dp__store_find(&b->store, seen[i].name);
        CHECK(e != NULL);
        if (e == NULL) continue;
        CHECK(e->dims == seen[i].dims && e->bytes == seen[i].end - seen[i].begin);
        CHECK(memcmp(e->shape, seen[i].shape, (size_t)e->dims * sizeof *e->shape) == 0);
        if (dp__dtype_bytes(e->dtype) == 0) continue;
        CHECK_TEXT(dp__dtypes[e->dtype].name, seen[i].dtype);
        char  *raw = (char *)malloc(e->bytes + 1);
        size_t size = dp__dtype_bytes(e->dtype);
        CHECK(dp__store_read(&b->store, e, 0, e->bytes / size, raw, &b->err) == DP_OK);
        st_turn(raw, e->bytes, size);
        CHECK(memcmp(raw, file + bytes - seen[want - 1].end + seen[i].begin, e->bytes) == 0);
        free(raw);
    }
    st_shut(b);
    ref_free(tree);
    return status == DP_OK;
}

static const char st_crafted[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"k\\u00e9y\":\"v\"},"
    "\"bert.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},"
    "\"half\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[24,28]},"
    "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[28,28]},"
    "\"q\":{\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[28,29]},"
    "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[29,30]}}     ";

static void test_st_flips(void) {
    st_bench b;
    size_t   bytes, accepted = 0, data = 0, refused = 0, total;
    char    *file = st_make(st_crafted, sizeof st_crafted - 1, 30, &bytes);
    st_setup(&b);
    CHECK(st_compare(&b, file, bytes));
    for (size_t cut = 0; cut < bytes; cut++) refused += !st_compare(&b, file, cut);
    printf("    truncations: %zu refused, %zu accepted\n", refused, bytes - refused);
    CHECK_INT(refused, bytes);
    refused = 0;
    total = bytes * 8;
    for (size_t i = 0; i < total; i++) {
        file[i / 8] = (char)(file[i / 8] ^ 1 << i % 8);
        int ok = st_compare(&b, file, bytes);
        file[i / 8] = (char)(file[i / 8] ^ 1 << i % 8);
        if (ok && i / 8 >= bytes - 30) data++;
        else if (ok) accepted++;
        else refused++;
    }
    printf("    bit flips: %zu refused, %zu accepted in names and free text, %zu in data; all with "
           "the reference's content\n", refused, accepted, data);
    CHECK_INT(data, 30 * 8);
    CHECK(refused > 2000 && accepted > 50);
    free(file);
    st_done(&b);
}

/* All kinds of elements through the reader. */
static void test_st_read(void) {
    static const char header[] =
        "{\"a\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[0,12]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[12,18]},"
        "\"c\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[18,34]},"
        "\"d\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[34,46]},"
        "\"e\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[46,54]},"
        "\"f\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[54,62]}}";
    static const uint16_t f16[] = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x8000, 0x03FF};
    static const float    w16[] = {1, -2, 5.9604644775390625e-8f, 65504, -0.0f, 6.09755516e-5f};
    static const uint16_t b16[] = {0x3F80, 0xBF00, 0x4120};
    static const double   f64[] = {0.1, -3.5};
    static const float    f32[] = {1.5f, -2.25f, 1e-40f};
    st_bench b;
    size_t   bytes, start;
    dp_real  to[8];
    int64_t  i64;
    char    *file = st_make(header, sizeof header - 1, 62, &bytes);
    start = bytes - 62;
    for (int i = 0; i < 6; i++) dp__store_le((uint8_t *)file + start + 2 * i, 2, f16[i]);
    for (int i = 0; i < 3; i++) dp__store_le((uint8_t *)file + start + 12 + 2 * i, 2, b16[i]);
    memcpy(file + start + 18, f64, 16);
    dp__swap_le(file + start + 18, 2, 8);
    memcpy(file + start + 34, f32, 12);
    dp__swap_le(file + start + 34, 3, 4);
    st_setup(&b);
    memory_add(b.m, "model.safetensors", file, bytes);
    CHECK(st_open(&b) == DP_OK);
    const dp__store *s = &b.store;
    const dp__entry *e[6];
    for (int i = 0; i < 6; i++) {
        char name[2] = {(char)('a' + i), 0};
        e[i] = dp__store_find(s, name);
        CHECK(e[i] != NULL);
    }
    CHECK(dp__store_find(s, "") == NULL && dp__store_find(s, "g") == NULL);
    CHECK(dp__store_read_real(s, e[0], 0, 6, to, &b.err) == DP_OK);
    for (int i = 0; i < 6; i++) CHECK(to[i] == (dp_real)w16[i]);
    CHECK(dp__store_read_real(s, e[0], 2, 2, to, &b.err) == DP_OK && to[1] == 65504);
    CHECK(dp__store_read_real(s, e[1], 0, 3, to, &b.err) == DP_OK);
    CHECK(to[0] == 1 && to[1] == (dp_real)-0.5 && to[2] == 10);
    CHECK(dp__store_read_real(s, e[2], 0, 2, to, &b.err) == DP_OK);
    CHECK(to[0] == (dp_real)0.1 && to[1] == (dp_real)-3.5);
    CHECK(dp__store_read_real(s, e[3], 1, 2, to, &b.err) == DP_OK);
    CHECK(to[0] == (dp_real)-2.25 && to[1] == (dp_real)1e-40f);
    CHECK(dp__store_read(s, e[4], 0, 1, &i64, &b.err) == DP_OK && i64 == 0x363534333231302F);
    check_error("real of I64", &b.err, dp__store_read_real(s, e[4], 0, 1, to, &b.err),
                DP_E_UNSUPPORTED, "S10", start + 46);
    check_error("C64", &b.err, dp__store_read(s, e[5], 0, 1, to, &b.err), DP_E_UNSUPPORTED, "S10",
                start + 54);
    CHECK(dp__store_read(s, e[3], 3, 0, to, &b.err) == DP_OK);
    CHECK(dp__store_read(s, e[3], 3, 1, to, &b.err) == DP_E_ARG);
    CHECK(dp__store_read(s, e[3], 4, 0, to, &b.err) == DP_E_ARG);
    CHECK(dp__store_read(s, e[3], 1, SIZE_MAX, to, &b.err) == DP_E_ARG);
    CHECK(dp__store_read(s, e[3], UINT64_MAX, 2, to, &b.err) == DP_E_ARG);
    /* S12: NaN and both infinities, in every dtype and place */
    static const struct { int e; size_t at, n; uint64_t bits; } odd[] = {
        {0, 10, 2, 0x7C00}, {0, 0, 2, 0xFC01}, {0, 4, 2, 0x7E00}, {1, 14, 2, 0x7F80},
        {1, 16, 2, 0xFFC0},
        {2, 18, 8, 0x7FF0000000000000u}, {2, 26, 8, 0x7FF8000000000000u}, {3, 34, 4, 0xFF800000u},
        {3, 42, 4, 0x7FC00000u}, {3, 38, 4, 0x7F800001u}, {2, 18, 8, 0x47F0000000000000u},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char old[8];
        if (odd[i].bits == 0x47F0000000000000u && sizeof(dp_real) == 8) continue; /* 2^128 */
        memcpy(old, file + start + odd[i].at, 8);
        dp__store_le((uint8_t *)file + start + odd[i].at, odd[i].n, odd[i].bits);
        size_t count = (size_t)e[odd[i].e]->shape[0];
        check_error("not finite", &b.err, dp__store_read_real(s, e[odd[i].e], 0, count, to, &b.err),
                    DP_E_FORMAT, "S12", start + odd[i].at);
        CHECK(strstr(b.err.text, odd[i].e == 0 ? "'a'" : odd[i].e == 1 ? "'b'" : odd[i].e == 2
                                 ? "'c'" : "'d'") != NULL);
        memcpy(file + start + odd[i].at, old, 8);
    }
    st_shut(&b);
    free(file);
    st_done(&b);
}

/* Longer than one reading step: the bad element is found in the last one. */
static void test_st_read_long(void) {
    size_t n = 2 * DP__READ_ELEMENTS + 17, bytes;
    char   header[128];
    st_bench b;
    for (int half = 0; half < 2; half++) {
        size_t size = half ? 2 : 4;
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":"
                 "[0,%zu]}}", half ? "BF16" : "F32", n, n * size);
        char *file = st_make(header, strlen(header), n * size, &bytes);
        char *data = file + bytes - n * size;
        for (size_t i = 0; i < n; i++) {
            float    v = (float)(i % 100);
            uint32_t bits;
            memcpy(&bits, &v, 4);
            dp__store_le((uint8_t *)data + i * size, size, half ? bits >> 16 : bits);
        }
        st_setup(&b);
        memory_add(b.m, "model.safetensors", file, bytes);
        CHECK(st_open(&b) == DP_OK && b.store.count == 1);
        guarded  g = guarded_new(n * sizeof(dp_real));
        dp_real *to = (dp_real *)(void *)g.p;
        size_t   bad = 0;
        CHECK(dp__store_read_real(&b.store, b.store.entries, 0, n, to, &b.err) == DP_OK);
        for (size_t i = 0; i < n; i++) bad += to[i] != (dp_real)(i % 100);
        CHECK_INT(bad, 0);
        data[(n - 1) * size + size - 1] = 0x7F;
        data[(n - 1) * size + size - 2] = (char)0x80;
        dp_status status = dp__store_read_real(&b.store, b.store.entries, 0, n, to, &b.err);
        check_error("last", &b.err, status, DP_E_FORMAT, "S12", bytes - size);
        guarded_free(&g);
        st_shut(&b);
        st_done(&b);
        free(file);
    }
}

/* A header with n tensors of one byte, names of name_bytes. */
static char *st_many(size_t n, size_t name_bytes, size_t metadata, size_t pad, size_t *bytes) {
    char  *h = (char *)malloc(n * (name_bytes + 80) + metadata + pad + 100);
    size_t at = 0;
    h[at++] = '{';
    if (metadata > 0) {
        at += (size_t)sprintf(h + at, "\"__metadata__\":{\"a\":\"");
        memset(h + at, 'm', metadata - 8);
        at += metadata - 8;
        at += (size_t)sprintf(h + at, "\"}%s", n ? "," : "");
    }
    for (size_t i = 0; i < n; i++)
        at += (size_t)sprintf(h + at, "\"%0*zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":"
                              "[%zu,%zu]}%s", (int)name_bytes, i, i, i + 1, i + 1 < n ? "," : "");
    h[at++] = '}';
    for (size_t i = 0; i < pad; i++) h[at++] = ' ';
    char *file = st_make(h, at, n, bytes);
    free(h);
    return file;
}

static void test_st_limits(void) {
    st_bench b;
    size_t   bytes;
    st_setup(&b);
    for (int more = -1; more <= 1; more++) {
        struct { const char *what, *rule; size_t n, name, metadata, pad; } c[] = {
            {"tensors", "S6", DP_MAX_TENSORS, 5, 0, 0}, {"name", "S6", 1, DP_MAX_NAME_BYTES, 0, 0},
            {"metadata", "S5", 0, 0, DP__MAX_METADATA_BYTES, 0},
            {"header", "S2", 0, 0, 0, DP_MAX_HEADER_BYTES - 2},
        };
        for (int i = 0; i < 4; i++) {
            size_t *limit = i == 0 ? &c[i].n : i == 1 ? &c[i].name : i == 2 ? &c[i].metadata
                                                                             : &c[i].pad;
            *limit += (size_t)(more + 1);
            *limit -= 1;
            char *file = st_many(c[i].n, c[i].name, c[i].metadata, c[i].pad, &bytes);
            memory_add(b.m, "model.safetensors", file, bytes);
            b.heap.peak_bytes = 0;
            dp_status status = st_open(&b);
            if (status != (more > 0 ? DP_E_LIMIT : DP_OK)) printf("    %s %d\n", c[i].what, more);
            CHECK_INT(status, more > 0 ? DP_E_LIMIT : DP_OK);
            if (status != DP_OK) CHECK_TEXT(b.err.rule, c[i].rule);
            CHECK(b.heap.peak_bytes <= 16 * bytes + 65536);
            st_shut(&b);
            free(file);
        }
    }
    st_done(&b);
}

/* ---- sharded checkpoints ------------------------------------------------------------------ */

#define INDEX "model.safetensors.index.json"
#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"
#define TWO(x, y) "{\"" x "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}," \
                  "\"" y "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"

typedef struct index_case {
    const char *index;
    dp_status   code;
    const char *rule;
    long        place; /* -1: none */
    const char *file;  /* that the error names */
} index_case;

/* Beside every index stand s1 with tensors a and c, s2 with b, s3 (damaged). */
static const index_case index_cases[] = {
    {"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s1\"}}", DP_OK, "", 0, ""},
    {"{\"metadata\":{\"total_size\":3,\"x\":[{}]},\"weight_map\":{\"b\":\"s2\"}}", DP_OK, "", 0,
     ""},
    {"{\"weight_map\":{},\"metadata\":null}", DP_OK, "", 0, ""},
    {"", DP_E_FORMAT, "J1", 0, INDEX},
    {"[]", DP_E_FORMAT, "F11", 0, INDEX},
    {"{}", DP_E_FORMAT, "F11", 1, INDEX},
    {"{\"weight_map\":[]}", DP_E_FORMAT, "F11", 14, INDEX},
    {"{\"weight_map\":null}", DP_E_FORMAT, "F11", 14, INDEX},
    {"{\"x\":0,\"weight_map\":{}}", DP_E_FORMAT, "F11", 2, INDEX},
    {"{\"weight_map\":{\"a\":1}}", DP_E_FORMAT, "F11", 19, INDEX},
    {"{\"weight_map\":{\"a\":null}}", DP_E_FORMAT, "F11", 19, INDEX},
    {"{\"weight_map\":{\"a\":\"s1\",\"a\":\"s2\"}}", DP_E_FORMAT, "J2", 25, INDEX},
    {"{\"weight_map\":{},\"weight_map\":{}}", DP_E_FORMAT, "J2", 18, INDEX},
    {"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\"}}", DP_E_FORMAT, "F11", -1, "s1"},
    {"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s1\"}}", DP_E_FORMAT, "F11", -1, "s1"},
    {"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s1\",\"c\":\"s1\"}}", DP_E_FORMAT, "F11", -1, "s1"},
    {"{\"weight_map\":{\"a\":\"s1\",\"c\":\"s1\",\"d\":\"s1\"}}", DP_E_FORMAT, "F11", -1, "s1"},
    {"{\"weight_map\":{\"x\":\"s2\"}}", DP_E_FORMAT, "F11", -1, "s2"},
    {"{\"weight_map\":{\"x\":\"s3\"}}", DP_E_FORMAT, "S9", 62, "s3"},
    {"{\"weight_map\":{\"x\":\"s4\"}}", DP_E_NOT_FOUND, "", -1, "s4"},
    {"{\"weight_map\":{\"x\":\"link\"}}", DP_E_UNSUPPORTED, "F2", -1, "link"},
    {"{\"weight_map\":{\"x\":\"\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"..\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"../s2\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"/etc/passwd\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"d\\\\s2\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"c:s2\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"s\\n\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"\\u002e\\u002e\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"nul\"}}", DP_E_FORMAT, "F1", 20, INDEX},
    {"{\"weight_map\":{\"x\":\"s2\\u0000\"}}", DP_E_FORMAT, "J3", 22, INDEX},
    {"{\"weight_map\":{\"x\":\"\\udfff\"}}", DP_E_FORMAT, "J3", 20, INDEX},
};

static void index_files(st_bench *b, char *keep[3]) {
    size_t n;
    keep[0] = st_make(TWO("c", "a"), sizeof TWO("c", "a") - 1, 2, &n);
    memory_add(b->m, "s1", keep[0], n);
    keep[1] = st_make(ONE("b"), sizeof ONE("b") - 1, 1, &n);
    memory_add(b->m, "s2", keep[1], n);
    keep[2] = st_make(ONE("x"), sizeof ONE("x") - 1, 2, &n);
    memory_add(b->m, "s3", keep[2], n);
    memory_add(b->m, "link", keep[1], n)->link = 1;
}

static void test_index_cases(void) {
    st_bench b;
    char    *keep[3];
    size_t   bad = 0, n = sizeof index_cases / sizeof *index_cases;
    st_setup(&b);
    index_files(&b, keep);
    for (size_t i = 0; i < n; i++) {
        const index_case *c = index_cases + i;
        memory_add(b.m, INDEX, c->index, strlen(c->index));
        dp_status status = st_open(&b);
        check_error(c->index, &b.err, status, c->code, c->rule,
                    c->place < 0 ? DP_NO_PLACE : (uint64_t)c->place);
        if (status != DP_OK) CHECK_TEXT(b.err.file, c->file);
        bad += status != DP_OK;
        st_shut(&b);
    }
    memory_add(b.m, INDEX, index_cases[0].index, strlen(index_cases[0].index));
    CHECK(st_open(&b) == DP_OK && b.store.count == 3 && b.store.file_count == 2);
    const dp__entry *a = dp__store_find(&b.store, "a"), *c = dp__store_find(&b.store, "c");
    uint8_t v[2] = {0, 0};
    CHECK(a && c && dp__store_read(&b.store, a, 0, 1, v, &b.err) == DP_OK);
    CHECK(c && dp__store_read(&b.store, c, 0, 1, v + 1, &b.err) == DP_OK && v[0] == 2 && v[1] == 1);
    st_shut(&b);
    printf("    %zu accepted, %zu refused\n", n - bad, bad);
    for (int i = 0; i < 3; i++) free(keep[i]);
    st_done(&b);
}

/* Which file is taken, and what is said when there is none. */
static void test_index_order(void) {
    st_bench b;
    char    *keep[3];
    st_setup(&b);
    check_error("nothing", &b.err, st_open(&b), DP_E_NOT_FOUND, "", DP_NO_PLACE);
    CHECK_TEXT(b.err.file, "model.safetensors");
    st_shut(&b);
    memory_add(b.m, "pytorch_model.bin.index.json", "{}", 2);
    check_error("bin index", &b.err, st_open(&b), DP_E_UNSUPPORTED, "", DP_NO_PLACE);
    st_shut(&b);
    memory_add(b.m, "pytorch_model.bin", "x", 1);
    check_error("bin", &b.err, st_open(&b), DP_E_UNSUPPORTED, "", DP_NO_PLACE);
    CHECK_TEXT(b.err.file, "pytorch_model.bin");
    st_shut(&b);
    index_files(&b, keep);
    memory_add(b.m, INDEX, index_cases[0].index, strlen(index_cases[0].index));
    CHECK(st_open(&b) == DP_OK);
    st_shut(&b);
    memory_file *single = memory_find(b.m, "s2");
    single = memory_add(b.m, "model.safetensors", single->data, single->bytes);
    CHECK(st_open(&b) == DP_OK && b.store.count == 1);
    st_shut(&b);
    single->link = 1; /* a link is refused, not passed over for the index */
    check_error("link", &b.err, st_open(&b), DP_E_UNSUPPORTED, "F2", DP_NO_PLACE);
    CHECK(strstr(b.err.text, "--follow-links") != NULL);
    st_shut(&b);
    for (int i = 0; i < 3; i++) free(keep[i]);
    st_done(&b);
}

/* Every truncation and bit flip of an index: accepted only when the reference reads the same map
 * and the map fits the shards. */
static void test_index_flips(void) {
    static const char text[] = "{\"metadata\": {\"total_size\": 3}, \"weight_map\": {\"a\": "
                               "\"s1\", \"c\": \"s1\", \"b\": \"s2\"}}\n";
    static const char *const names[] = {"a", "c", "b"}, *const files[] = {"s1", "s1", "s2"};
    st_bench b;
    char    *keep[3], copy[sizeof text];
    size_t   n = sizeof text - 1, accepted = 0, refused = 0;
    st_setup(&b);
    index_files(&b, keep);
    for (size_t i = 0; i < n * 9; i++) { /* n cuts, then 8n flips */
        size_t bytes = i < n ? i : n;
        memcpy(copy, text, n);
        if (i >= n) copy[(i - n) / 8] = (char)(copy[(i - n) / 8] ^ 1 << (i - n) % 8);
        ref *tree = ref_parse(copy, bytes);
        const ref *map = tree ? ref_get(tree, "weight_map") : NULL;
        int want = map != NULL && map->kind == '{' && ref_count(map) == 3 && ref_count(tree) == 2 &&
                   ref_get(tree, "metadata") != NULL;
        for (int k = 0; want && k < 3; k++) {
            const ref *v = ref_get(map, names[k]);
            want = v != NULL && v->kind == 's' && strcmp(v->text, files[k]) == 0;
        }
        memory_add(b.m, INDEX, copy, bytes);
        dp_status status = st_open(&b);
        CHECK_INT(status == DP_OK, want);
        if (status == DP_OK) accepted++;
        else refused++;
        st_shut(&b);
        ref_free(tree);
    }
    printf("    truncations and bit flips: %zu refused, %zu accepted as the reference says\n",
           refused, accepted);
    CHECK(accepted > 3 && refused > 600);
    for (int i = 0; i < 3; i++) free(keep[i]);
    st_done(&b);
}

static void test_index_limits(void) {
    st_bench b;
    char    *text = (char *)malloc((size_t)(DP_MAX_TENSORS + 2) * 16), shard[64];
    size_t   bytes;
    st_setup(&b);
    char *files[DP_MAX_SHARDS + 1];
    for (int i = 0; i <= DP_MAX_SHARDS; i++) {
        snprintf(shard, sizeof shard, ONE("%04d"), i);
        files[i] = st_make(shard, strlen(shard), 1, &bytes);
        snprintf(shard, sizeof shard, "s%04d", i);
        memory_add(b.m, shard, files[i], bytes);
    }
    for (int more = -1; more <= 1; more++) {
        size_t at = (size_t)sprintf(text, "{\"weight_map\":{");
        for (int i = 0; i < DP_MAX_SHARDS + more; i++)
            at += (size_t)sprintf(text + at, "%s\"%04d\":\"s%04d\"", i ? "," : "", i, i);
        at += (size_t)sprintf(text + at, "}}");
        memory_add(b.m, INDEX, text, at);
        dp_status status = st_open(&b);
        CHECK_INT(status, more > 0 ? DP_E_LIMIT : DP_OK);
        if (status != DP_OK) CHECK_TEXT(b.err.rule, "F11");
        st_shut(&b);
        at = (size_t)sprintf(text, "{\"weight_map\":{");
        for (int i = 0; i < DP_MAX_TENSORS + more; i++)
            at += (size_t)sprintf(text + at, "%s\"%d\":\"x\"", i ? "," : "", i);
        at += (size_t)sprintf(text + at, "}}");
        memory_add(b.m, INDEX, text, at);
        CHECK_INT(st_open(&b), more > 0 ? DP_E_LIMIT : DP_E_NOT_FOUND); /* there is no shard x */
        st_shut(&b);
    }
    for (int i = 0; i <= DP_MAX_SHARDS; i++) free(files[i]);
    free(text);
    st_done(&b);
}

/* Allocation and file faults at every point, once and for ever: nothing is lost, the code is
 * right, and the next try works. */
static void test_st_faults(void) {
    st_bench b;
    char    *keep[3];
    size_t   points = 0;
    st_setup(&b);
    index_files(&b, keep);
    memory_add(b.m, INDEX, index_cases[0].index, strlen(index_cases[0].index));
    for (int io = 0; io < 2; io++) {
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            for (size_t at = 1;; at++) {
                b.heap.calls = b.m->calls = 0;
                b.heap.fail_at = io ? 0 : at;
                b.m->fail_at = io ? at : 0;
                b.heap.for_ever = b.m->for_ever = for_ever;
                dp_status status = st_open(&b);
                size_t calls = io ? b.m->calls : b.heap.calls;
                if (status == DP_OK) CHECK_INT(b.store.count, 3);
                else CHECK_INT(status, io ? DP_E_IO : DP_E_MEMORY);
                st_shut(&b);
                if (calls < at) break;
                points++;
                b.heap.fail_at = b.m->fail_at = 0;
                CHECK(st_open(&b) == DP_OK);
                st_shut(&b);
            }
        }
    }
    printf("    %zu points\n", points);
    CHECK(points >= 25);
    for (int i = 0; i < 3; i++) free(keep[i]);
    st_done(&b);
}

/* ---- safetensors writer ------------------------------------------------------------------- */

static void st_entry(dp__entry *e, const char *name, dp__dtype dtype, int32_t dims, uint64_t a,
                     uint64_t b) {
    memset(e, 0, sizeof *e);
    e->name = name;
    e->dtype = dtype;
    e->dims = dims;
    e->shape[0] = a;
    e->shape[1] = b;
}

static void st_fill(dp__entry e[8]) {
    st_entry(e, "z.weight", DP__F32, 2, 2, 3);
    st_entry(e + 1, "a.scale", DP__F32, 2, 2, 1);
    st_entry(e + 2, "a.weight", DP__I8, 2, 2, 3);
    st_entry(e + 3, "pos", DP__I64, 1, 2, 0);
    st_entry(e + 4, "half", DP__F16, 1, 3, 0);
    st_entry(e + 5, "brain", DP__BF16, 1, 3, 0);
    st_entry(e + 6, "empty\"x", DP__F32, 2, 0, 5);
    st_entry(e + 7, "byte", DP__U8, 0, 0, 0);
}

static dp_status st_write(const dp_env *env, void *dir, const char *const *metadata,
                          dp_error *err) {
    dp__entry     e[8];
    dp__st_writer w;
    char          data[64];
    st_fill(e);
    dp_status status = dp__st_begin(&w, env, dir, "model.safetensors", e, 8, metadata,
                                    err);
    for (int i = 0; i < 8 && status == DP_OK; i++) {
        size_t size = dp__dtype_bytes(e[i].dtype), n = (size_t)e[i].bytes / size;
        for (int j = 0; j < 64; j++) data[j] = (char)j;
        st_turn(data, sizeof data, size);
        status = dp__st_append(&w, &e[i], data, n / 2, err);
        if (status == DP_OK) status = dp__st_append(&w, &e[i], data + n / 2 * size, n - n / 2, err);
    }
    return status == DP_OK ? dp__st_end(&w, err) : status;
}

static void test_st_write(void) {
    st_bench b;
    char     digest[65];
    static const char *const metadata[] = {"note", "v\"\n", NULL};
    st_setup(&b);
    CHECK(st_write(&b.env, NULL, metadata, &b.err) == DP_OK && st_open(&b) == DP_OK);
    st_shut(&b);
    CHECK(st_write(&b.env, NULL, NULL, &b.err) == DP_OK);
    memory_file *f = memory_find(b.m, "model.safetensors");
    CHECK(f != NULL && dp__load_le((const uint8_t *)f->data, 8) % 8 == 0);
    /* SHA-256 of what the reference (safetensors 0.8.0, safetensors.torch.save with the metadata
     * {"format": "pt"}) writes for these tensors: byte i of each tensor is i. */
    dp_sha256(f->data, f->bytes, digest);
    CHECK_TEXT(digest,
               "1b5e1014778460589b085bcc9f7bb02032991f80390e8e9aa7f879b026741ecd");
    CHECK(st_compare(&b, f->data, f->bytes)); /* and our reader takes it */
    memory_clear(b.m);
    dp__entry     e[2];
    dp__st_writer w;
    char          data[8] = {0};
    st_entry(e, "a", DP__U8, 1, 2, 0);
    st_entry(e + 1, "a", DP__U8, 1, 2, 0);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 2, NULL, &b.err) == DP_E_ARG); /* twice */
    st_entry(e + 1, "b", DP__U16, 1, 2, 0);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 2, NULL, &b.err) == DP_E_ARG);
    st_entry(e, "a", DP__U8, 1, 2, 0);
    st_entry(e + 1, "b", DP__U8, 1, 2, 0);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 2, NULL, &b.err) == DP_OK);
    CHECK(dp__st_append(&w, e + 1, data, 1, &b.err) == DP_E_ARG && w.file == NULL);
    st_entry(e, "a", DP__U8, 1, 2, 0);
    st_entry(e + 1, "b", DP__F64, 2, UINT64_MAX / 4, 2);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 2, NULL, &b.err) == DP_E_LIMIT);
    st_entry(e, "a", DP__U8, 1, 2, 0);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 1, NULL, &b.err) == DP_OK);
    CHECK(dp__st_append(&w, e, data, 3, &b.err) == DP_E_ARG && w.file == NULL);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 1, NULL, &b.err) == DP_OK);
    CHECK(dp__st_append(&w, e, data, 1, &b.err) == DP_OK && dp__st_end(&w, &b.err) == DP_E_ARG);
    CHECK(dp__st_begin(&w, &b.env, NULL, "x", e, 1, NULL, &b.err) == DP_OK);
    dp__st_abort(&w);
    dp__st_abort(&w);
    CHECK_INT(b.m->count, 0);
    CHECK_INT(b.heap.live_bytes, 0);
    st_done(&b);
}

static void test_st_write_faults(void) {
    st_bench b;
    size_t   points = 0;
    st_setup(&b);
    for (int io = 0; io < 2; io++) {
        for (size_t at = 1;; at++) {
            memory_clear(b.m);
            memory_add(b.m, "model.safetensors", "old", 3);
            b.heap.calls = 0;
            b.heap.fail_at = io ? 0 : at;
            b.m->fail_at = io ? at : 0;
            dp_status status = st_write(&b.env, NULL, NULL, &b.err);
            memory_file *f = memory_find(b.m, "model.safetensors");
            CHECK(status != DP_OK || f->bytes > 100);
            CHECK(status == DP_OK || (f->bytes == 3 && b.err.code == status));
            CHECK(b.m->temp.data == NULL && b.m->opened == b.m->closed && b.heap.live_bytes == 0);
            if ((io ? b.m->calls : b.heap.calls) < at) break;
            points++;
        }
    }
    printf("    %zu points\n", points);
    CHECK(points > 12);
    st_done(&b);
}

/* ---- config.json -------------------------------------------------------------------------- */

typedef struct conf_case {
    const char *text;
    dp_status   code;
    const char *rule;
    long        place; /* -1: none */
} conf_case;

#define QW "\"weights\":{\"num_bits\":8,\"type\":\"int\",\"symmetric\":true,\"strategy\":" \
           "\"channel\",\"dynamic\":false}"
#define QA "\"input_activations\":{\"num_bits\":8,\"type\":\"int\",\"symmetric\":true," \
           "\"strategy\":\"token\",\"dynamic\":true}"
#define QH "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":" \
           "\"int-quantized\",\"quantization_status\":\"compressed\","
#define QG(groups) QH "\"config_groups\":{" groups "}}}"
#define Q0 "\"group_0\":{\"targets\":[\"Linear\"]," QW "," QA "}"
#define Q1 "\"group_1\":{\"targets\":[\"Embedding\"]," QW "}"

static const conf_case config_cases[] = {
    {"{}", DP_OK, "", 0},
    {"{\"a\":1,\"architectures\":[\"X\"],\"use_cache\":true,\"x\":{\"y\":[]}}", DP_OK, "", 0},
    {"{\"hidden_size\":null,\"model_type\":null,\"id2label\":null,\"pruned_heads\":null,"
     "\"quantization_config\":null,\"problem_type\":null,\"classifier_dropout\":null,"
     "\"is_decoder\":null,\"layer_norm_eps\":null}", DP_OK, "", 0},
    {"{\"model_type\":\"bert\",\"position_embedding_type\":\"absolute\",\"is_decoder\":false,"
     "\"add_cross_attention\":false,\"pruned_heads\":{}}", DP_OK, "", 0},
    {"", DP_E_FORMAT, "J1", 0},
    {"[]", DP_E_FORMAT, "M1", 0},
    {"null", DP_E_FORMAT, "M1", 0},
    {"{} x", DP_E_FORMAT, "J5", 3},
    {"{\"hidden_size\":1,\"hidden_size\":1}", DP_E_FORMAT, "J2", 18},
    {"{\"model_type\":\"roberta\"}", DP_E_UNSUPPORTED, "M2", 15},
    {"{\"model_type\":\"Bert\"}", DP_E_UNSUPPORTED, "M2", 15},
    {"{\"model_type\":1}", DP_E_UNSUPPORTED, "M2", 14},
    {"{\"model_type\":[\"bert\"]}", DP_E_UNSUPPORTED, "M2", 14},
    {"{\"hidden_size\":0}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":-12}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":768.0}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":1e2}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":\"768\"}", DP_E_FORMAT, "M3", 16},
    {"{\"hidden_size\":true}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":[768]}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":99999999999999999999}", DP_E_FORMAT, "M3", 15},
    {"{\"hidden_size\":9223372036854775807}", DP_E_LIMIT, "M3", 15},
    {"{\"hidden_size\":4294967308}", DP_E_LIMIT, "M3", 15},
    {"{\"pad_token_id\":-1}", DP_E_FORMAT, "M3", 16},
    {"{\"pad_token_id\":30521}", DP_OK, "", 0},
    {"{\"pad_token_id\":30522}", DP_E_FORMAT, "M3", -1},
    {"{\"vocab_size\":3,\"pad_token_id\":2}", DP_OK, "", 0},
    {"{\"hidden_size\":10,\"num_attention_heads\":3}", DP_E_FORMAT, "M4", -1},
    {"{\"hidden_size\":10,\"num_attention_heads\":11}", DP_E_FORMAT, "M4", -1},
    {"{\"num_attention_heads\":2,\"hidden_size\":10}", DP_OK, "", 0},
    {"{\"hidden_act\":\"gelu\"}", DP_OK, "", 0}, {"{\"hidden_act\":\"relu\"}", DP_OK, "", 0},
    {"{\"hidden_act\":\"gelu_pytorch_tanh\"}", DP_OK, "", 0},
    {"{\"hidden_act\":\"swish\"}", DP_OK, "", 0}, {"{\"hidden_act\":\"tanh\"}", DP_OK, "", 0},
    {"{\"hidden_act\":\"relu6\"}", DP_E_UNSUPPORTED, "M5", 15},
    {"{\"hidden_act\":\"leaky_relu\"}", DP_E_UNSUPPORTED, "M5", 15},
    {"{\"hidden_act\":\"gel\"}", DP_E_UNSUPPORTED, "M5", 15},
    {"{\"hidden_act\":\"gelu_\"}", DP_E_UNSUPPORTED, "M5", 15},
    {"{\"hidden_act\":{}}", DP_E_UNSUPPORTED, "M5", 14},
    {"{\"position_embedding_type\":\"relative_key\"}", DP_E_UNSUPPORTED, "M6", 28},
    {"{\"position_embedding_type\":0}", DP_E_UNSUPPORTED, "M6", 27},
    {"{\"layer_norm_eps\":1e-12}", DP_OK, "", 0}, {"{\"layer_norm_eps\":0.1}", DP_OK, "", 0},
    {"{\"layer_norm_eps\":0}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":1e-60}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":2e-46}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":-1e-5}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":0.11}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":1e999}", DP_E_FORMAT, "M7", 18},
    {"{\"layer_norm_eps\":\"1e-12\"}", DP_E_FORMAT, "M7", 19},
    {"{\"hidden_dropout_prob\":0}", DP_OK, "", 0},
    {"{\"hidden_dropout_prob\":0.999}", DP_OK, "", 0},
    {"{\"hidden_dropout_prob\":1}", DP_E_FORMAT, "M7", 23},
    {"{\"hidden_dropout_prob\":0.99999999999}", DP_E_FORMAT, "M7", 23},
    {"{\"hidden_dropout_prob\":-0.5}", DP_E_FORMAT, "M7", 23},
    {"{\"attention_probs_dropout_prob\":1.5}", DP_E_FORMAT, "M7", 32},
    {"{\"classifier_dropout\":1.0}", DP_E_FORMAT, "M7", 22},
    {"{\"initializer_range\":1}", DP_OK, "", 0},
    {"{\"initializer_range\":1.5}", DP_E_FORMAT, "M7", 21},
    {"{\"problem_type\":\"regression\"}", DP_OK, "", 0},
    {"{\"problem_type\":\"multi_label_classification\"}", DP_OK, "", 0},
    {"{\"problem_type\":\"ranking\"}", DP_E_UNSUPPORTED, "M8", 17},
    {"{\"problem_type\":0}", DP_E_UNSUPPORTED, "M8", 16},
    {"{\"is_decoder\":true}", DP_E_UNSUPPORTED, "M10", 14},
    {"{\"is_decoder\":1}", DP_E_UNSUPPORTED, "M10", 14},
    {"{\"add_cross_attention\":true}", DP_E_UNSUPPORTED, "M10", 23},
    {"{\"pruned_heads\":{\"0\":[1]}}", DP_E_UNSUPPORTED, "M10", 16},
    {"{\"pruned_heads\":[]}", DP_E_UNSUPPORTED, "M10", 16},
    /* labels */
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", DP_OK, "", 0},
    {"{\"id2label\":{\"1\":\"b\",\"0\":\"a\"},\"label2id\":{\"a\":0,\"b\":1}}", DP_OK, "", 0},
    {"{\"label2id\":{\"b\":1,\"a\":0}}", DP_OK, "", 0},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":{\"LABEL_1\":1,\"LABEL_0\":0}}",
     DP_OK, "", 0},
    {"{\"label2id\":{\"LABEL_0\":0},\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", DP_OK, "", 0},
    {"{\"label2id\":{\"LABEL_0\":1,\"LABEL_1\":0}}", DP_OK, "", 0},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":{\"LABEL_0\":0,\"a\":1}}",
     DP_E_FORMAT, "V4", 59},
    {"{\"id2label\":{\"0\":\"a\"},\"label2id\":3}", DP_E_FORMAT, "V4", 33},
    {"{\"num_labels\":2,\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", DP_OK, "", 0},
    {"{\"num_labels\":7}", DP_OK, "", 0},
    {"{\"id2label\":[]}", DP_E_FORMAT, "V4", 12},
    {"{\"id2label\":{}}", DP_E_FORMAT, "V4", 12},
    {"{\"id2label\":{\"0\":{}}}", DP_E_FORMAT, "J1", 17},
    {"{\"id2label\":{\"1\":\"a\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", DP_E_FORMAT, "V4", 26},
    {"{\"id2label\":{\"00\":\"a\"}}", DP_E_FORMAT, "V4", 19},
    {"{\"id2label\":{\"-0\":\"a\"}}", DP_E_FORMAT, "V4", 19},
    {"{\"id2label\":{\"a\":\"a\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"a\"}}", DP_E_FORMAT, "V4", -1},
    {"{\"id2label\":{\"0\":\"a\\n\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"id2label\":{\"0\":\"a\\u007f\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"id2label\":{\"0\":\"\\u0000\"}}", DP_E_FORMAT, "J3", 18},
    {"{\"id2label\":{\"0\":\"\\ud800\"}}", DP_E_FORMAT, "J3", 18},
    {"{\"label2id\":{\"a\":0,\"b\":0}}", DP_E_FORMAT, "V4", 23},
    {"{\"label2id\":{\"a\":\"x\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"label2id\":{\"a\":\"00\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"label2id\":{\"a\":\"\"}}", DP_E_FORMAT, "V4", 18},
    {"{\"label2id\":{\"a\":true}}", DP_E_FORMAT, "V4", 17},
    {"{\"id2label\":{\"0\":0.5}}", DP_E_FORMAT, "J1", 17},
    {"{\"id2label\":{\"0\":null}}", DP_E_FORMAT, "J1", 17},
    {"{\"label2id\":{\"a\":0.0}}", DP_E_FORMAT, "V4", 17},
    {"{\"num_labels\":3,\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", DP_E_FORMAT, "V4", 43},
    {"{\"num_labels\":1,\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", DP_E_FORMAT, "V4", 41},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":{\"a\":1,\"b\":0}}", DP_E_FORMAT,
     "V4", 53},
    {"{\"id2label\":{\"0\":\"a\",\"1\":\"b\"},\"label2id\":{\"a\":0}}", DP_E_FORMAT, "V4", 47},
    /* quantization */
    {QG(Q0), DP_OK, "", 0}, {QG(Q1 "," Q0), DP_OK, "", 0},
    {QH "\"ignore\":[\"classifier\",\"a.b\"],\"kv_cache_scheme\":null,\"version\":\"1\","
     "\"global_compression_ratio\":1.5,\"sparsity_config\":{},\"config_groups\":{" Q0 "}}}", DP_OK,
     "", 0},
    {QG("\"group_0\":{\"targets\":[\"Linear\"],\"output_activations\":null," QW "," QA "}"), DP_OK,
     "", 0},
    {"{\"quantization_config\":[]}", DP_E_FORMAT, "M9", 23},
    {"{\"quantization_config\":{}}", DP_E_UNSUPPORTED, "M9", 23},
    {QG(""), DP_E_UNSUPPORTED, "M9", 23}, {QG(Q1), DP_E_UNSUPPORTED, "M9", 23},
    {QG(Q0 ",\"group_1\":{\"targets\":[\"Embedding\"]}"), DP_E_UNSUPPORTED, "M9", 23},
    {QG("\"group_0\":{\"targets\":[\"Linear\"]," QW "}"), DP_E_UNSUPPORTED, "M9", 23},
    {QG("\"group_0\":{\"targets\":[]," QW "," QA "}"), DP_E_UNSUPPORTED, "M9", 23},
    {QG("\"group_0\":{\"targets\":[\"Linear\",\"Linear\"]," QW "," QA "}"), DP_E_UNSUPPORTED, "M9",
     169},
    {QG("\"group_0\":{\"targets\":\"Linear\"," QW "," QA "}"), DP_E_UNSUPPORTED, "M9", 159},
    {QG("\"group_0\":{\"targets\":[[\"Linear\"]]," QW "," QA "}"), DP_E_UNSUPPORTED, "M9", 161},
    {QG(Q0 ",\"group_2\":{\"targets\":[\"Linear\"]," QW "}"), DP_E_UNSUPPORTED, "M9", 384},
    {QG("\"group_0\":{\"targets\":[\"Linear\"],\"weights.num_bits\":8," QW "," QA "}"),
     DP_E_UNSUPPORTED, "M9", 188},
    {"{\"quantization_config\":{\"quant_method\":\"gptq\"}}", DP_E_UNSUPPORTED, "M9", 40},
    {"{\"quantization_config\":{\"bits\":4}}", DP_E_UNSUPPORTED, "M9", 31},
    {"{\"quantization_config\":{\"format\":\"pack-quantized\"}}", DP_E_UNSUPPORTED, "M9", 34},
    {"{\"quantization_config\":{\"ignore\":[1]}}", DP_E_FORMAT, "J1", 34},
    {"{\"quantization_config\":{\"ignore\":\"x\"}}", DP_E_UNSUPPORTED, "M9", 34},
};

static dp_status conf_run(const char *text, size_t bytes, test_heap *heap, int tokenizer, void *to,
                          dp__arena *arena, dp_error *err) {
    guarded  g = guarded_new(bytes);
    dp_alloc alloc = test_alloc(heap);
    if (bytes > 0) memcpy(g.p, text, bytes);
    dp__arena_init(arena, &alloc);
    if (tokenizer)
        dp__members_usual(dp__tokenizer_members, to, sizeof(dp__tokenizer_config));
    dp_status status = tokenizer
        ? dp__tokenizer_config_parse((const char *)g.p, bytes, arena, "tokenizer_config.json",
                                     (dp__tokenizer_config *)to, err)
        : dp__config_parse((const char *)g.p, bytes, arena, "config.json", (dp__config *)to, err);
    guarded_free(&g); /* nothing in the result points into the text */
    return status;
}

static void conf_table(const conf_case *cases, size_t n, int tokenizer) {
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        const conf_case *c = cases + i;
        union { dp__config c; dp__tokenizer_config t; char bytes[1]; } to, zero;
        test_heap heap;
        dp__arena arena;
        dp_error  err;
        memset(&heap, 0, sizeof heap);
        memset(&zero, 0, sizeof zero);
        memset(&to, 0x5A, sizeof to);
        dp_status status = conf_run(c->text, strlen(c->text), &heap, tokenizer, &to, &arena, &err);
        check_error(c->text, &err, status, c->code, c->rule,
                    c->place < 0 ? DP_NO_PLACE : (uint64_t)c->place);
        if (status != DP_OK)
            CHECK(memcmp(&to, &zero, tokenizer ? sizeof to.t : sizeof to.c) == 0);
        bad += status != DP_OK;
        CHECK(heap.peak_bytes <= 32 * strlen(c->text) + (2u << 20));
        dp__arena_free(&arena);
        CHECK_INT(heap.live_bytes, 0);
    }
    printf("    %zu accepted, %zu refused\n", n - bad, bad);
}

static void test_config_cases(void) {
    conf_table(config_cases, sizeof config_cases / sizeof *config_cases, 0);
}

static const char config_crafted[] =
    "{\"architectures\": [\"BertForSequenceClassification\"], \"model_type\": \"bert\", "
    "\"num_hidden_layers\": 3, \"hidden_size\": 48, \"num_attention_heads\": 4, "
    "\"intermediate_size\": 100, \"vocab_size\": 999, \"max_position_embeddings\": 77, "
    "\"type_vocab_size\": 2, \"layer_norm_eps\": 1e-05, \"hidden_dropout_prob\": 0.25, "
    "\"attention_probs_dropout_prob\": 0.5, \"classifier_dropout\": null, \"pad_token_id\": 7, "
    "\"initializer_range\": 0.02, \"hidden_act\": \"gelu_new\", \"problem_type\": null, "
    "\"id2label\": {\"0\": \"Acne\", \"1\": \"(vertigo) Paroymsal\", \"2\": \"caf\\u00e9\"}, "
    "\"label2id\": {\"Acne\": 0, \"(vertigo) Paroymsal\": 1, \"caf\xc3\xa9\": 2}}";

static int ref_int(const ref *tree, const char *key, int usual) {
    const ref *r = ref_get(tree, key);
    return r == NULL || r->kind == '0' ? usual : r->kind == 'n' ? (int)strtod(r->text, NULL) : -999;
}

static float ref_real(const ref *tree, const char *key, float usual) {
    const ref *r = ref_get(tree, key);
    if (r == NULL || r->kind == '0') return usual;
    return r->kind == 'n' ? (float)strtod(r->text, NULL) : -999;
}

/* Is this what the tree says? */
static int config_equals(const dp__config *c, const ref *t) {
    static const char *const acts[] = {"gelu", "gelu_new", "relu", "silu", "tanh",
                                       "quick_gelu", "mish"};
    const ref *ids = ref_get(t, "id2label"), *act = ref_get(t, "hidden_act");
    float hidden = ref_real(t, "hidden_dropout_prob", 0.1f);
    int ok = c->layers == ref_int(t, "num_hidden_layers", 12) &&
             c->hidden == ref_int(t, "hidden_size", 768) &&
             c->heads == ref_int(t, "num_attention_heads", 12) &&
             c->inner == ref_int(t, "intermediate_size", 3072) &&
             c->vocab == ref_int(t, "vocab_size", 30522) &&
             c->positions == ref_int(t, "max_position_embeddings", 512) &&
             c->types == ref_int(t, "type_vocab_size", 2) &&
             c->pad_id == ref_int(t, "pad_token_id", 0) &&
             c->eps == ref_real(t, "layer_norm_eps", 1e-12f) &&
             c->init_range == ref_real(t, "initializer_range", 0.02f) &&
             c->attention_dropout == ref_real(t, "attention_probs_dropout_prob", 0.1f) &&
             c->hidden_dropout == hidden &&
             c->classifier_dropout == ref_real(t, "classifier_dropout", hidden) &&
             strcmp(act == NULL ? "gelu" : act->text, acts[c->act]) == 0 && !c->quantized;
    const ref *map = ids != NULL ? ids : ref_get(t, "label2id");
    ok = ok && c->classes == (map != NULL ? (int)ref_count(map) : 2);
    for (const ref *r = map ? map->child : NULL; ok && r != NULL; r = r->next) {
        int id = atoi(ids ? r->key : r->text);
        ok = id >= 0 && id < c->classes && strcmp(c->labels[id], ids ? r->text : r->key) == 0;
    }
    return ok && c->problem == (c->classes == 1 ? DP_REGRESSION : DP_SINGLE_LABEL);
}

static void test_config_flips(void) {
    size_t n = sizeof config_crafted - 1, accepted = 0, refused = 0;
    char   text[sizeof config_crafted];
    for (size_t i = 0; i <= n * 9; i++) {
        size_t     bytes = i < n ? i : n;
        dp__config c;
        test_heap  heap;
        dp__arena  arena;
        dp_error   err;
        memset(&heap, 0, sizeof heap);
        memcpy(text, config_crafted, n);
        if (i >= n && i < n * 9) text[(i - n) / 8] = (char)(text[(i - n) / 8] ^ 1 << (i - n) % 8);
        dp_status status = conf_run(text, bytes, &heap, 0, &c, &arena, &err);
        ref      *tree = ref_parse(text, bytes);
        if (status == DP_OK) {
            accepted++;
            CHECK(tree != NULL && config_equals(&c, tree));
        } else {
            refused++;
            CHECK(err.code == status && err.rule[0] != 0 && c.layers == 0 && c.labels == NULL);
            CHECK(tree != NULL || err.rule[0] == 'J');
        }
        ref_free(tree);
        dp__arena_free(&arena);
        CHECK_INT(heap.live_bytes, 0);
    }
    printf("    truncations and bit flips: %zu refused, %zu accepted with the reference's "
           "content\n", refused, accepted);
    CHECK(accepted > 1500 && refused > 3000);
}

static void test_config_limits(void) {
    static const struct { const char *name; long long limit; } ints[] = {
        {"num_hidden_layers", DP_MAX_LAYERS}, {"hidden_size", DP_MAX_HIDDEN},
        {"num_attention_heads", DP_MAX_HEADS}, {"intermediate_size", DP_MAX_INNER},
        {"vocab_size", DP_MAX_VOCAB}, {"max_position_embeddings", DP_MAX_POSITIONS},
        {"type_vocab_size", DP_MAX_TYPES}, {"num_labels", DP_MAX_CLASSES},
    };
    dp__config c;
    test_heap  heap;
    dp__arena  arena;
    dp_error   err;
    char       text[256];
    memset(&heap, 0, sizeof heap);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        for (int more = -1; more <= 1; more++) {
            long long v = ints[i].limit + more;
            const char *name = ints[i].name;
            char  first[64] = "";
            if (i == 1) snprintf(first, sizeof first, "\"num_attention_heads\":1,");
            if (i == 2) snprintf(first, sizeof first, "\"hidden_size\":%lld,", v);
            snprintf(text, sizeof text, "{%s\"%s\":%lld}", first, name, v);
            dp_status status = conf_run(text, strlen(text), &heap, 0, &c, &arena, &err);
            CHECK_INT(status, more > 0 ? DP_E_LIMIT : DP_OK);
            if (status != DP_OK) CHECK_TEXT(err.rule, "M3");
            dp__arena_free(&arena);
        }
    }
    char *big = (char *)malloc(DP_MAX_CONFIG_BYTES + 32);
    for (int more = -1; more <= 1; more++) {
        size_t n = (size_t)(DP_MAX_CONFIG_BYTES + more);
        memset(big, ' ', n);
        memcpy(big, "{}", 2);
        CHECK_INT(conf_run(big, n, &heap, 0, &c, &arena, &err), more > 0 ? DP_E_LIMIT : DP_OK);
        dp__arena_free(&arena);
        size_t label = (size_t)(DP__MAX_LABEL + more);
        size_t at = (size_t)sprintf(big, "{\"id2label\":{\"0\":\"");
        memset(big + at, 'x', label);
        at += label;
        at += (size_t)sprintf(big + at, "\"}}");
        CHECK_INT(conf_run(big, at, &heap, 0, &c, &arena, &err), more > 0 ? DP_E_LIMIT : DP_OK);
        dp__arena_free(&arena);
        at = (size_t)sprintf(big, "{\"quantization_config\":{\"ignore\":[\"\"");
        for (int i = 1; i < DP__MAX_IGNORED + more; i++) at += (size_t)sprintf(big + at, ",\"\"");
        at += (size_t)sprintf(big + at, "]}}"); /* the rest of the scheme is missing */
        CHECK_INT(conf_run(big, at, &heap, 0, &c, &arena, &err),
                  more > 0 ? DP_E_LIMIT : DP_E_UNSUPPORTED);
        dp__arena_free(&arena);
        at = (size_t)sprintf(big, "{\"label2id\":{"); /* as many labels as fit: at most 65,537 */
        for (int i = 0; i < DP_MAX_CLASSES + more; i++)
            at += (size_t)sprintf(big + at, "%s\"%x\":%d", i ? "," : "", (unsigned)i, i);
        at += (size_t)sprintf(big + at, "}}");
        CHECK(at <= DP_MAX_CONFIG_BYTES);
        heap.peak_bytes = 0;
        CHECK_INT(conf_run(big, at, &heap, 0, &c, &arena, &err), more > 0 ? DP_E_LIMIT : DP_OK);
        CHECK(heap.peak_bytes <= 32 * at + (2u << 20));
        dp__arena_free(&arena);
    }
    free(big);
    CHECK_INT(heap.live_bytes, 0);
}

/* Fails the n-th allocation, once and for ever. */
static void conf_memory(const char *text, int tokenizer) {
    size_t points = 0;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        for (size_t at = 1;; at++) {
            union { dp__config c; dp__tokenizer_config t; } to, zero;
            test_heap heap;
            dp__arena arena;
            dp_error  err;
            memset(&heap, 0, sizeof heap);
            memset(&zero, 0, sizeof zero);
            heap.fail_at = at;
            heap.for_ever = for_ever;
            dp_status status = conf_run(text, strlen(text), &heap, tokenizer, &to, &arena, &err);
            if (heap.calls < at) CHECK_INT(status, DP_OK);
            else CHECK_INT(status, DP_E_MEMORY);
            if (status != DP_OK)
                CHECK(memcmp(&to, &zero, tokenizer ? sizeof to.t : sizeof to.c) == 0);
            dp__arena_free(&arena);
            CHECK_INT(heap.live_bytes, 0);
            if (heap.calls < at) break;
            points++;
        }
    }
    printf("    %zu points\n", points);
}

static void test_config_memory(void) {
    conf_memory(config_crafted, 0);
    conf_memory(QH "\"ignore\":[\"classifier\"],\"config_groups\":{" Q0 "}}}", 0);
}

/* Names that are integers and ids that are texts, as Python programs leave them. */
static void test_config_label_forms(void) {
    static const char *const forms[] = {
        "{\"id2label\":{\"1\":-12,\"0\":7},\"label2id\":{\"7\":0,\"-12\":1}}",
        "{\"label2id\":{\"-12\":\"1\",\"7\":\"0\"}}",
        "{\"label2id\":{\"7\":\"0\",\"-12\":1},\"id2label\":{\"0\":\"7\",\"1\":-12}}",
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        dp__config c;
        test_heap  heap;
        dp__arena  arena;
        dp_error   err;
        memset(&heap, 0, sizeof heap);
        CHECK(conf_run(forms[i], strlen(forms[i]), &heap, 0, &c, &arena, &err) == DP_OK);
        CHECK_INT(c.classes, 2);
        CHECK_TEXT(c.classes == 2 ? c.labels[0] : "", "7");
        CHECK_TEXT(c.classes == 2 ? c.labels[1] : "", "-12");
        dp__arena_free(&arena);
    }
}

static void test_config_round_trip(void) {
    static const char *const acts[] = {"gelu", "gelu_new", "relu", "silu", "tanh",
                                       "quick_gelu", "mish"};
    dp_alloc   alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__arena  arena;
    dp_error   err;
    const char *labels[3] = {"a\"b", "caf\xc3\xa9", ""};
    const char *ignore[2] = {"classifier", "bert.pooler.dense"};
    dp__arena_init(&arena, &alloc);
    for (int i = 0; i < 30; i++) {
        dp__config c, d;
        dp__buffer out;
        memset(&c, 0, sizeof c);
        c.layers = i + 1; c.heads = i % 4 + 1; c.hidden = c.heads * 7; c.inner = 13;
        c.vocab = 100 + i;
        c.positions = 64; c.types = 1 + i % 3; c.classes = 1 + i % 3; c.pad_id = i;
        c.act = (int32_t)(i % 7); c.problem = (int32_t)(i % 3); c.problem_given = 1;
        c.eps = 1e-12f * (float)(i + 1); c.init_range = 0.02f / (float)(i + 1);
        c.hidden_dropout = 1.0f / (float)(i + 2); c.attention_dropout = 0;
        c.classifier_dropout = 0.3f;
        c.labels = labels;
        c.quantized = i > 10;
        c.int8_tables = i > 20;
        c.ignore = ignore;
        c.ignore_count = c.quantized ? i % 3 : 0;
        dp__buffer_init(&out, &alloc);
        CHECK(dp__config_write(&c, &out));
        dp_status status = dp__config_parse(out.p, out.n, &arena, "config.json", &d, &err);
        if (status != DP_OK) printf("    %s\n%.*s\n", err.text, (int)out.n, out.p);
        CHECK(status == DP_OK);
        ref *tree = ref_parse(out.p, out.n);
        CHECK(tree != NULL && strcmp(ref_get(tree, "hidden_act")->text, acts[c.act]) == 0);
        ref_free(tree);
        dp__buffer_free(&out);
        if (status != DP_OK) continue;
        CHECK(d.ignore_count == c.ignore_count && d.classes == c.classes);
        for (int k = 0; k < c.classes; k++) CHECK_TEXT(d.labels[k], c.labels[k]);
        for (int k = 0; k < c.ignore_count; k++) CHECK_TEXT(d.ignore[k], c.ignore[k]);
        for (int k = 1; k < c.classes; k++) CHECK(strcmp(*d.by_name[k - 1], *d.by_name[k]) < 0);
        d.labels = c.labels;
        d.by_name = c.by_name;
        d.ignore = c.ignore;
        CHECK(memcmp(&c, &d, sizeof c) == 0);
    }
    dp__arena_free(&arena);
}

/* ---- tokenizer_config.json ---------------------------------------------------------------- */

static const conf_case tokenizer_cases[] = {
    {"{}", DP_OK, "", 0},
    {"{\"do_lower_case\":false,\"strip_accents\":null,\"tokenize_chinese_chars\":true,"
     "\"model_max_length\":1e30,\"never_split\":null,\"do_basic_tokenize\":true}", DP_OK, "", 0},
    {"{\"unk_token\":\"[UNK]\",\"cls_token\":{\"content\":\"<s>\",\"lstrip\":false,\"__type\":"
     "\"AddedToken\"},\"tokenizer_class\":\"BertTokenizerFast\"}", DP_OK, "", 0},
    {"{\"added_tokens_decoder\":{\"0\":{\"content\":\"[PAD]\",\"special\":true}},"
     "\"additional_special_tokens\":[],\"never_split\":[]}", DP_OK, "", 0},
    {"", DP_E_FORMAT, "J1", 0}, {"[]", DP_E_FORMAT, "M1", 0}, {"{", DP_E_FORMAT, "J1", 1},
    {"{\"x\":1,\"x\":2}", DP_E_FORMAT, "J2", 8},
    {"{\"do_lower_case\":1}", DP_E_FORMAT, "T1", 17},
    {"{\"do_lower_case\":\"true\"}", DP_E_FORMAT, "T1", 18},
    {"{\"strip_accents\":0}", DP_E_FORMAT, "T1", 17},
    {"{\"tokenize_chinese_chars\":[]}", DP_E_FORMAT, "T1", 26},
    {"{\"unk_token\":1}", DP_E_FORMAT, "T2", 13}, {"{\"unk_token\":\"\"}", DP_E_FORMAT, "T2", 14},
    {"{\"unk_token\":[\"[UNK]\"]}", DP_E_FORMAT, "T2", 13},
    {"{\"unk_token\":{}}", DP_E_FORMAT, "T2", 14},
    {"{\"unk_token\":{\"content\":{\"content\":\"x\"}}}", DP_E_FORMAT, "T2", 39},
    {"{\"unk_token\":{\"content\":null}}", DP_E_FORMAT, "T2", 28},
    {"{\"sep_token\":\"\\u0000\"}", DP_E_FORMAT, "J3", 14},
    {"{\"pad_token\":\"\\ud800x\"}", DP_E_FORMAT, "J3", 14},
    {"{\"tokenizer_class\":\"RobertaTokenizer\"}", DP_E_UNSUPPORTED, "T3", 20},
    {"{\"tokenizer_class\":3}", DP_E_UNSUPPORTED, "T3", 19},
    {"{\"tokenizer_class\":null,\"model_input_names\":\"token_type_ids\"}", DP_OK, "", 0},
    {"{\"do_basic_tokenize\":false}", DP_E_UNSUPPORTED, "T3", 21},
    {"{\"truncation_side\":\"right\"}", DP_OK, "", 0},
    {"{\"truncation_side\":\"left\"}", DP_E_UNSUPPORTED, "T3", 20},
    {"{\"never_split\":[\"x\"]}", DP_E_UNSUPPORTED, "T4", 15},
    {"{\"never_split\":\"x\"}", DP_E_UNSUPPORTED, "T4", 16},
    {"{\"added_tokens_decoder\":[]}", DP_E_FORMAT, "T4", 24},
    {"{\"added_tokens_decoder\":{\"5\":\"x\"}}", DP_E_UNSUPPORTED, "T4", 26},
    {"{\"added_tokens_decoder\":{\"5\":{\"content\":\"covid\",\"special\":false}}}",
     DP_E_UNSUPPORTED, "T4", 26},
    {"{\"added_tokens_decoder\":{\"5\":{\"content\":\"covid\"}}}", DP_E_UNSUPPORTED, "T4", 26},
};

static void test_tokenizer_config_cases(void) {
    dp__tokenizer_config t;
    dp__arena arena;
    test_heap heap;
    dp_error  err;
    conf_table(tokenizer_cases, sizeof tokenizer_cases / sizeof *tokenizer_cases, 1);
    memset(&heap, 0, sizeof heap);
    CHECK(conf_run(tokenizer_cases[0].text, 2, &heap, 1, &t, &arena, &err) == DP_OK);
    CHECK(t.lower_case == 1 && t.strip_accents == -1 && t.chinese_chars == 1 && !t.explicit_case);
    CHECK_TEXT(t.mask, "[MASK]");
    dp__arena_free(&arena);
    const char *text = tokenizer_cases[1].text;
    CHECK(conf_run(text, strlen(text), &heap, 1, &t, &arena, &err) == DP_OK);
    CHECK(t.lower_case == 0 && t.explicit_case == 1 && t.strip_accents == -1);
    dp__arena_free(&arena);
    text = tokenizer_cases[2].text;
    CHECK(conf_run(text, strlen(text), &heap, 1, &t, &arena, &err) == DP_OK);
    CHECK_TEXT(t.cls, "<s>");
    dp__arena_free(&arena);
    dp__members_usual(dp__tokenizer_members, &t, sizeof t);
    CHECK(t.lower_case == 1);
    static const struct { const char *text; int32_t kind, types; } kinds[] = {
        {"{}", -1, 0}, {"{\"tokenizer_class\":null,\"model_input_names\":null}", -1, 0},
        {"{\"tokenizer_class\":\"BertTokenizer\"}", 0, 0},
        {"{\"tokenizer_class\":\"BertTokenizerFast\",\"model_input_names\":[]}", 0, 1},
        {"{\"tokenizer_class\":\"DistilBertTokenizer\"}", 1, 0},
        {"{\"model_input_names\":[\"input_ids\",\"token_type_ids\"],\"tokenizer_class\":"
         "\"DistilBertTokenizerFast\"}", 1, 2},
        {"{\"model_input_names\":[\"input_ids\",[\"token_type_ids\"]]}", -1, 1},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        text = kinds[i].text;
        CHECK(conf_run(text, strlen(text), &heap, 1, &t, &arena, &err) == DP_OK);
        CHECK(t.kind == kinds[i].kind && t.types == kinds[i].types);
        dp__arena_free(&arena);
    }
}

static const char tokenizer_crafted[] =
    "{\"do_lower_case\": false, \"strip_accents\": true, \"tokenize_chinese_chars\": false, "
    "\"unk_token\": \"[UNK]\", \"cls_token\": {\"content\": \"[CLS]\", \"special\": true}, "
    "\"sep_token\": \"\\u005bSEP]\", \"pad_token\": \"[PAD]\", \"mask_token\": \"[MASK]\", "
    "\"tokenizer_class\": \"BertTokenizer\", \"model_max_length\": 512, \"never_split\": null, "
    "\"added_tokens_decoder\": {\"0\": {\"content\": \"[PAD]\", \"special\": true}}}";

static int ref_flag(const ref *t, const char *key, int usual) {
    const ref *r = ref_get(t, key);
    return r == NULL || r->kind == '0' ? usual : r->kind == 't' ? 1 : r->kind == 'f' ? 0 : -9;
}

static int ref_token_equals(const ref *t, const char *key, const char *usual, const char *got) {
    const ref *r = ref_get(t, key);
    if (r != NULL && r->kind == '{') r = ref_get(r, "content");
    return strcmp(r == NULL || r->kind == '0' ? usual : r->text, got) == 0;
}

static void test_tokenizer_config_flips(void) {
    size_t n = sizeof tokenizer_crafted - 1, accepted = 0, refused = 0;
    char   text[sizeof tokenizer_crafted];
    for (size_t i = 0; i <= n * 9; i++) {
        size_t bytes = i < n ? i : n;
        dp__tokenizer_config c;
        test_heap heap;
        dp__arena arena;
        dp_error  err;
        memset(&heap, 0, sizeof heap);
        memcpy(text, tokenizer_crafted, n);
        if (i >= n && i < n * 9) text[(i - n) / 8] = (char)(text[(i - n) / 8] ^ 1 << (i - n) % 8);
        dp_status status = conf_run(text, bytes, &heap, 1, &c, &arena, &err);
        ref      *t = ref_parse(text, bytes);
        if (status == DP_OK) {
            accepted++;
            CHECK(t != NULL && c.lower_case == ref_flag(t, "do_lower_case", 1));
            CHECK(t && c.strip_accents == ref_flag(t, "strip_accents", -1));
            CHECK(t && c.chinese_chars == ref_flag(t, "tokenize_chinese_chars", 1));
            CHECK(t && c.explicit_case == (ref_get(t, "do_lower_case") != NULL));
            CHECK(t && ref_token_equals(t, "unk_token", "[UNK]", c.unk));
            CHECK(t && ref_token_equals(t, "cls_token", "[CLS]", c.cls));
            CHECK(t && ref_token_equals(t, "sep_token", "[SEP]", c.sep));
            CHECK(t && ref_token_equals(t, "pad_token", "[PAD]", c.pad));
            CHECK(t && ref_token_equals(t, "mask_token", "[MASK]", c.mask));
        } else {
            refused++;
            CHECK(err.code == status && err.rule[0] != 0 && c.unk == NULL);
            CHECK(t != NULL || err.rule[0] == 'J');
        }
        ref_free(t);
        dp__arena_free(&arena);
        CHECK_INT(heap.live_bytes, 0);
    }
    printf("    truncations and bit flips: %zu refused, %zu accepted with the reference's "
           "content\n", refused, accepted);
    CHECK(accepted > 1000 && refused > 1500);
}

static void test_tokenizer_config_memory(void) {
    conf_memory(tokenizer_crafted, 1);
}

static void test_tokenizer_config_round_trip(void) {
    dp_alloc   alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__arena  arena;
    dp_error   err;
    dp__arena_init(&arena, &alloc);
    for (int i = 0; i < 12; i++) {
        dp__tokenizer_config t, back;
        dp__buffer out;
        memset(&t, 0, sizeof t);
        t.lower_case = i % 2;
        t.strip_accents = i / 2 % 3 - 1;
        t.chinese_chars = i / 6;
        t.explicit_case = 1;
        t.kind = i / 3 % 2;
        t.types = i / 2 % 2;
        t.unk = "[UNK]"; t.cls = "[CLS]"; t.sep = "</\"s>"; t.pad = "[PAD]"; t.mask = "\xc3\xa9";
        dp__buffer_init(&out, &alloc);
        t.max_length = i < 6 ? 100 : i < 9 ? 0 : 513;
        CHECK(dp__tokenizer_config_write(&t, 512, &out));
        t.max_length = i < 6 ? 100 : 512;
        dp__members_usual(dp__tokenizer_members, &back, sizeof back);
        CHECK(dp__tokenizer_config_parse(out.p, out.n, &arena, "x", &back, &err) == DP_OK);
        CHECK_TEXT(back.sep, t.sep);
        CHECK_TEXT(back.mask, t.mask);
        back.unk = t.unk; back.cls = t.cls; back.sep = t.sep; back.pad = t.pad; back.mask = t.mask;
        CHECK(memcmp(&t, &back, sizeof t) == 0);
        out.n = 0;
        CHECK(dp__tokenizer_config_write(&t, 0, &out));
        ref *tree = ref_parse(out.p, out.n);
        CHECK(tree && ref_count(tree) == 5 && strcmp(ref_get(tree, "sep_token")->text, t.sep) == 0);
        ref_free(tree);
        dp__buffer_free(&out);
    }
    dp__arena_free(&arena);
}

static const test tests_parse[] = {
    {"json_cases", test_json_cases},
    {"json_flips", test_json_flips},
    {"json_values", test_json_values},
    {"json_skip", test_json_skip},
    {"json_limits", test_json_limits},
    {"json_memory", test_json_memory},
    {"json_linear", test_json_linear},
    {"json_writer", test_json_writer},
    {"byte_order", test_byte_order},
    {"utf8_all", test_utf8_all},
    {"st_cases", test_st_cases},
    {"st_flips", test_st_flips},
    {"st_read", test_st_read},
    {"st_read_long", test_st_read_long},
    {"st_limits", test_st_limits},
    {"st_faults", test_st_faults},
    {"st_write", test_st_write},
    {"st_write_faults", test_st_write_faults},
    {"index_cases", test_index_cases},
    {"index_order", test_index_order},
    {"index_flips", test_index_flips},
    {"index_limits", test_index_limits},
    {"config_cases", test_config_cases},
    {"config_flips", test_config_flips},
    {"config_limits", test_config_limits},
    {"config_memory", test_config_memory},
    {"config_label_forms", test_config_label_forms},
    {"config_round_trip", test_config_round_trip},
    {"tokenizer_config_cases", test_tokenizer_config_cases},
    {"tokenizer_config_flips", test_tokenizer_config_flips},
    {"tokenizer_config_memory", test_tokenizer_config_memory},
    {"tokenizer_config_round_trip", test_tokenizer_config_round_trip},
};
