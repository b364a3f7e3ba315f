/* test_readers.c -- the readers of examples/rows.h (CSV, JSONL, plain lines) and the writers of
 * examples/common.h: every rule with the files it accepts and refuses, byte for byte; truncation
 * at every byte and every single-bit flip against independent readers; every allocation that
 * fails; every block size. A binary of its own: the programs are not part of the library. */
#include "test.h"
#include "reference_json.h"

static test_heap heap;       /* of everything that the readers hold */
static size_t    unwiped;    /* bytes of text that were freed as they stood */
static size_t    test_block = 65536;

static void *heap_take(size_t n) {
    return test_heap_alloc(&heap, n, 64);
}

static void heap_give(char *p, size_t n) {
    for (size_t i = 0; i < n; i++) unwiped += p[i] != 0;
    test_heap_free(&heap, p, n);
}

#define COMMON_MALLOC(n) heap_take(n)
#define COMMON_FREE(p, n) heap_give(p, n)
#define READ_BLOCK test_block
#include "../examples/common.h"
#include "../examples/rows.h"
#include "../examples/models.h"
#include "../examples/answers.h"

#include "reference_rows.h"

/* A reader over bytes in memory; the bytes are copied, so that a checker sees their ends. */
static int open_text(reader *r, const char *path, const char *text, size_t n, int need) {
    memset(r, 0, sizeof *r);
    r->path = path;
    r->fd = -1;
    if (!bytes_add(&r->in, text, n)) return 0;
    return reader_start(r, need);
}

/* A reader over a descriptor that gives test_block bytes at a time. */
static int open_stream(reader *r, const char *path, const char *text, size_t n, int need) {
    int fd = memfd_create("rows", 0);
    if (fd < 0 || write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0) abort();
    memset(r, 0, sizeof *r);
    r->path = path;
    r->fd = fd;
    return reader_start(r, need);
}

static const char *text_from(bytes *b) {
    if (!bytes_add(b, "", 1)) abort();
    return b->p;
}

/* A file of the tests: what the reader makes of it, faults with their rules and places. */
typedef struct rule_case {
    const char *what, *path, *text;
    size_t      n; /* 0: up to the terminator */
    const char *want;
} rule_case;

static void check_case(const rule_case *c) {
    reader r;
    bytes  got = {NULL, 0, 0};
    char   fault[96];
    size_t n = c->n ? c->n : strlen(c->text);
    int    started = open_text(&r, c->path, c->text, n, NEED_TEXT | NEED_LABEL);
    read_result result = started ? READ_ROW : READ_FAILED;
    while (result != READ_FAILED && (result = read_row(&r)) != READ_END && result != READ_FAILED) {
        if (result == READ_ROW) bytes_add(&got, r.field[FIELD_TEXT].p, r.field[FIELD_TEXT].n);
        if (result == READ_ROW) bytes_add(&got, "=", 1);
        if (result == READ_ROW) bytes_add(&got, r.field[FIELD_LABEL].p, r.field[FIELD_LABEL].n);
        snprintf(fault, sizeof fault, "%s@%llu:%llu", r.fault.rule,
                 (unsigned long long)r.fault.line, (unsigned long long)r.fault.place);
        if (result == READ_BAD) bytes_add(&got, fault, strlen(fault));
        bytes_add(&got, "|", 1);
    }
    snprintf(fault, sizeof fault, "!%s@%llu:%llu", r.fault.rule, (unsigned long long)r.fault.line,
             (unsigned long long)r.fault.place);
    if (result == READ_FAILED) bytes_add(&got, fault, strlen(fault));
    if (result == READ_FAILED) CHECK_INT(r.fault.code, END_DATA);
    reader_close(&r);
    const char *text = text_from(&got);
    if (strcmp(text, c->want) != 0) printf("    %s\n", c->what);
    CHECK_TEXT(text, c->want);
    bytes_free(&got);
}

#define H "symptoms,prognosis\n" /* 19 bytes */

/* Each rule of the banner: files with rule, line and byte. Broken rows fail alone. */
static void test_csv_rules(void) {
    static const rule_case cases[] = {
        {"plain", "a.csv", H "x,A\ny,B\n", 0, "x=A|y=B|"},
        {"no feed at the end", "a.csv", H "x,A", 0, "x=A|"},
        {"CRLF", "a.csv", "symptoms,prognosis\r\nx,A\r\ny,B\r\n", 0, "x=A|y=B|"},
        {"BOM once", "a.csv", "\xEF\xBB\xBF" H "x,A\n", 0, "x=A|"},
        {"second BOM is a name", "a.csv", "\xEF\xBB\xBF\xEF\xBB\xBF" H "x,A\n", 0, "!C1.5@1:3"},
        {"quotes", "a.csv", H "\"a \"\"b\"\", c\",A\n", 0, "a \"b\", c=A|"},
        {"feeds in quotes", "a.csv", H "\"a\r\nb\n\",A\nz,\n", 0, "a\r\nb\n=A|z=|"},
        {"stray quote is text", "a.csv", H "5\" cut,A\n", 0, "5\" cut=A|"},
        {"lone CR is text", "a.csv", H "a\rb,A\r\r\n", 0, "a\rb=A\r|"},
        {"CR at the end is text", "a.csv", H "a,A\r", 0, "a=A\r|"},
        {"blank lines", "a.csv", "\n\r\n" H "\nx,A\n\r\n\n", 0, "x=A|"},
        {"empty text", "a.csv", H ",A\n\"\",B\n", 0, "=A|=B|"},
        {"empty file", "a.csv", "", 0, ""},
        {"only a BOM", "a.csv", "\xEF\xBB\xBF", 0, ""},
        {"header alone", "a.csv", H, 0, ""},
        {"other names", "a.csv", "label,text\nA,x\n", 0, "x=A|"},
        {"symptoms wins", "a.csv", "text,symptoms,label,prognosis\na,b,c,d\n", 0, "b=d|"},
        {"unused twice", "a.csv", "u,u,symptoms,prognosis\n1,2,x,A\n", 0, "x=A|"},
        {"text twice behind symptoms", "a.csv", "text,text,symptoms,prognosis\n1,2,x,A\n", 0,
         "x=A|"},
        {"invalid UTF-8 passes", "a.csv", H "\xFF\xC3,A\n", 0, "\xFF\xC3=A|"},
        {"C1.1", "a.csv", H "x,A\ny,\"B\nz,A\n", 0, "x=A|!C1.1@3:25"},
        {"C1.1 in the header", "a.csv", "symptoms,\"prog", 0, "!C1.1@1:9"},
        {"C1.1 after two quotes", "a.csv", H "\"\"\"", 0, "!C1.1@2:19"},
        {"C1.2", "a.csv", H "x,A\n\"y\"z,B\nw,C\n", 0, "x=A|C1.2@3:26|w=C|"},
        {"C1.2 blank", "a.csv", H "\"y\" ,B\nw,C\n", 0, "C1.2@2:22|w=C|"},
        {"C1.2 lone CR", "a.csv", H "\"y\"\r,B\nw,C\n", 0, "C1.2@2:22|w=C|"},
        {"C1.3", "a.csv", H "x,A\ny\0,B\nw,C\n", 32, "x=A|C1.3@3:24|w=C|"},
        {"C1.3 in quotes", "a.csv", H "\"y\0\",B\nw,C\n", 30, "C1.3@2:21|w=C|"},
        {"C1.3 in an unused column", "a.csv", "u,symptoms,prognosis\n\0,x,A\n1,y,B\n", 33,
         "C1.3@2:21|y=B|"},
        {"C1.3 in the header", "a.csv", "\0,symptoms,prognosis\n1,x,A\n", 27, "!C1.3@1:0"},
        {"C1.3 in the header ends it", "a.csv", "\0,\"prognosis", 12, "!C1.3@1:0"},
        {"C1.2 in the header ends it", "a.csv", "\"u\"x,\"prognosis", 0, "!C1.2@1:3"},
        {"C1.4 fewer", "a.csv", H "x,A\ny\nw,C\n", 0, "x=A|C1.4@3:23|w=C|"},
        {"C1.4 more", "a.csv", H "x,A\ny,B,\nw,C\n", 0, "x=A|C1.4@3:23|w=C|"},
        {"C1.4 counts lines in quotes", "a.csv", H "\"a\nb\n\"\nw,C\n", 0, "C1.4@2:19|w=C|"},
        {"C1.4 behind lines in quotes", "a.csv", H "\"a\nb\",A\ny\nw,C\n", 0,
         "a\nb=A|C1.4@4:27|w=C|"},
        {"C1.5 text", "a.csv", "sym,prognosis\nx,A\n", 0, "!C1.5@1:0"},
        {"C1.5 label", "a.csv", "\nsymptoms,prog\nx,A\n", 0, "!C1.5@2:1"},
        {"C1.6 text", "a.csv", "symptoms,symptoms,prognosis\nx,y,A\n", 0, "!C1.6@1:0"},
        {"C1.6 id", "a.csv", "id,id,symptoms,prognosis\n1,2,x,A\n", 0, "!C1.6@1:0"},
    };
    for (int i = 0; i < COUNT(cases); i++) check_case(&cases[i]);
    printf("    %d files\n", COUNT(cases));
}

static void test_jsonl_rules(void) {
#define OK_ROW "{\"text\":\"z\",\"label\":\"B\"}\n"
    static const rule_case cases[] = {
        {"plain", "a.jsonl", "{\"symptoms\":\"x\",\"prognosis\":\"A\"}\n", 0, "x=A|"},
        {"number as label", "a.jsonl", "{\"text\":\"x\",\"label\":3}", 0, "x=3|"},
        {"symptoms wins before", "a.jsonl",
         "{\"symptoms\":\"s\",\"text\":\"t\",\"label\":\"A\",\"prognosis\":\"B\"}", 0, "s=B|"},
        {"symptoms wins behind", "a.jsonl",
         "{\"text\":\"t\",\"symptoms\":\"s\",\"prognosis\":\"B\",\"label\":\"A\"}", 0, "s=B|"},
        {"escapes, other keys", "a.jsonl",
         "{\"x\":[{\"text\":1}],\"t\\u0065xt\":\"a\\n\\u00e9\",\"label\":\"A\"}\r\n", 0,
         "a\n\xC3\xA9=A|"},
        {"blank lines, BOM", "a.jsonl", "\xEF\xBB\xBF\n \t\r\n" OK_ROW "\n", 0, "z=B|"},
        {"null id", "a.jsonl", "{\"text\":\"x\",\"label\":\"A\",\"id\":null}\n", 0, "x=A|"},
        {"empty text", "a.jsonl", "{\"text\":\"\",\"label\":\"A\"}\n", 0, "=A|"},
        {"other keys twice", "a.jsonl", "{\"u\":1,\"u\":2,\"text\":\"x\",\"label\":\"A\"}\n", 0,
         "x=A|"},
        {"J1 cut off", "a.jsonl", "{\"text\":\"x\"\n" OK_ROW, 0, "J1@1:11|z=B|"},
        {"J1 raw control", "a.jsonl", OK_ROW "{\"text\":\"\tx\",\"label\":\"A\"}\n" OK_ROW, 0,
         "z=B|J1@2:34|z=B|"},
        {"J1 bad UTF-8", "a.jsonl", "{\"text\":\"\xFF\",\"label\":\"A\"}\n" OK_ROW, 0,
         "J1@1:9|z=B|"},
        {"J1 no value", "a.jsonl", "{\"text\":,\"label\":\"A\"}\n" OK_ROW, 0, "J1@1:8|z=B|"},
        {"J3 key", "a.jsonl", "{\"\\ud800\":1,\"text\":\"x\",\"label\":\"A\"}\n" OK_ROW, 0,
         "J3@1:2|z=B|"},
        {"J5", "a.jsonl", "{\"text\":\"x\",\"label\":\"A\"} 1\n" OK_ROW, 0, "J5@1:25|z=B|"},
        {"J1 leading zero", "a.jsonl", "{\"text\":\"x\",\"label\":01}\n" OK_ROW, 0, "J1@1:21|z=B|"},
        {"J6", "a.jsonl", "{\"text\":\"x\",\"label\":1.}\n" OK_ROW, 0, "J6@1:22|z=B|"},
        {"second BOM", "a.jsonl", OK_ROW "\xEF\xBB\xBF" OK_ROW OK_ROW, 0, "z=B|J1@2:25|z=B|"},
        {"L1 array", "a.jsonl", "[1]\n" OK_ROW, 0, "L1@1:0|z=B|"},
        {"L1 string", "a.jsonl", OK_ROW " \"x\"\n" OK_ROW, 0, "z=B|L1@2:27|z=B|"},
        {"L2 text", "a.jsonl", "{\"text\":\"x\",\"text\":\"y\",\"label\":\"A\"}\n" OK_ROW, 0,
         "L2@1:20|z=B|"},
        {"L2 null id", "a.jsonl", "{\"id\":null,\"id\":1,\"text\":\"\",\"label\":\"\"}\n" OK_ROW, 0,
         "L2@1:16|z=B|"},
        {"L3 text", "a.jsonl", "{\"text\":5,\"label\":\"A\"}\n" OK_ROW, 0, "L3@1:8|z=B|"},
        {"L3 null text", "a.jsonl", "{\"text\":null,\"label\":\"A\"}\n" OK_ROW, 0, "L3@1:8|z=B|"},
        {"L3 label", "a.jsonl", "{\"text\":\"x\",\"label\":[]}\n" OK_ROW, 0, "L3@1:20|z=B|"},
        {"L3 id", "a.jsonl", "{\"text\":\"x\",\"label\":1,\"id\":{}}\n" OK_ROW, 0, "L3@1:27|z=B|"},
        {"L4 text", "a.jsonl", "{\"label\":\"A\"}\n" OK_ROW, 0, "L4@1:0|z=B|"},
        {"L4 label", "a.jsonl", OK_ROW "{\"text\":\"x\",\"label\":null}\n" OK_ROW, 0,
         "z=B|L4@2:25|z=B|"},
    };
    for (int i = 0; i < COUNT(cases); i++) check_case(&cases[i]);
    printf("    %d files\n", COUNT(cases));
}

/* Plain lines, and which format a file has. */
static void test_lines_rules(void) {
    reader r;
    CHECK(open_text(&r, "a.txt", "a,b\r\n\n\n{}\nx\0y\nlast", 18, NEED_TEXT));
    CHECK_INT(read_row(&r), READ_ROW);
    CHECK(r.field[FIELD_TEXT].n == 3 && !memcmp(r.field[FIELD_TEXT].p, "a,b", 3));
    CHECK_INT(read_row(&r), READ_ROW);
    CHECK_INT(r.row_line, 4);
    CHECK_INT(read_row(&r), READ_BAD);
    CHECK_TEXT(r.fault.rule, "C1.3");
    CHECK_INT(r.fault.line, 5);
    CHECK_INT(r.fault.place, 11);
    CHECK_INT(read_row(&r), READ_ROW);
    CHECK(r.field[FIELD_TEXT].n == 4);
    CHECK_INT(read_row(&r), READ_END);
    CHECK_INT(r.rows, 4);
    reader_close(&r);
    CHECK(open_text(&r, "a.csv", "text\n\"\"\n\nx\n", 11, NEED_TEXT)); /* one column: "" is a row */
    CHECK_INT(read_row(&r), READ_ROW);
    CHECK_INT(r.row_line, 2);
    CHECK_INT(read_row(&r), READ_ROW);
    CHECK_INT(r.row_line, 4);
    CHECK_INT(read_row(&r), READ_END);
    reader_close(&r);
    CHECK(!open_text(&r, "a.txt", "x\n", 2, NEED_TEXT | NEED_LABEL));
    CHECK_TEXT(r.fault.rule, "C1.5");
    CHECK_INT(r.fault.line, 1);
    reader_close(&r);
    CHECK_INT(format_of("x.csv", '{'), FORMAT_CSV);
    CHECK_INT(format_of("x.jsonl", 'a'), FORMAT_JSONL);
    CHECK_INT(format_of("x.ndjson", 'a'), FORMAT_JSONL);
    CHECK_INT(format_of("x.txt", '{'), FORMAT_LINES);
    CHECK_INT(format_of("X.TXT", '{'), FORMAT_LINES);
    CHECK_INT(format_of("-", '{'), FORMAT_JSONL);
    CHECK_INT(format_of("x", 's'), FORMAT_CSV);
    CHECK_INT(format_of(".csv", '{'), FORMAT_JSONL);
}

/* 65,536 columns are read, one more is refused (C1.7); a row with more is ragged. */
static void test_column_limit(void) {
    for (int extra = -1; extra <= 1; extra++) {
        bytes  b = {NULL, 0, 0};
        reader r;
        ref_say(&b, "symptoms,prognosis");
        for (int i = 2; i < READ_MAX_COLUMNS + extra; i++) ref_say(&b, ",u");
        ref_say(&b, "\nx,A");
        for (int i = 2; i < READ_MAX_COLUMNS + extra; i++) ref_say(&b, ",");
        ref_say(&b, "\nx,A");
        for (int i = 2; i < READ_MAX_COLUMNS + extra + 70000; i++) ref_say(&b, ",");
        int started = open_text(&r, "a.csv", b.p, b.n, NEED_TEXT | NEED_LABEL);
        CHECK_INT(started, extra <= 0);
        if (!started) CHECK_TEXT(r.fault.rule, "C1.7");
        if (started) CHECK_INT(read_row(&r), READ_ROW);
        if (started) CHECK_INT(read_row(&r), READ_BAD);
        if (started) CHECK_TEXT(r.fault.rule, "C1.4");
        reader_close(&r);
        bytes_free(&b);
    }
}

/* A row of 64 MiB is read, one byte more fails alone (C3.1) and is not held in memory. */
static void test_row_limit(void) {
    static const char *const paths[] = {"a.csv", "a.jsonl", "a.txt"};
    static const char *const heads[] = {"symptoms\n", "", ""};
    static const char *const rows[][2] = {{"", "\n"}, {"{\"text\":\"\"}", ""}, {"", ""}};
    for (int f = 0; f < 3; f++) {
        for (int extra = -1; extra <= 1; extra++) {
            bytes  b = {NULL, 0, 0};
            reader r;
            if (test_light() && extra < 1) continue;
            ref_say(&b, heads[f]);
            size_t fill = (size_t)READ_MAX_ROW + (size_t)extra - strlen(rows[f][0]) -
                          strlen(rows[f][1]);
            ref_say(&b, rows[f][0]);
            if (!bytes_reserve(&b, fill + 64)) abort();
            memset(b.p + b.n, f == 1 ? ' ' : 'x', fill);
            b.n += fill;
            ref_say(&b, f == 0 ? "\nlast\n" : f == 1 ? "\n{\"text\":\"last\"}\n" : "\nlast\n");
            CHECK(open_text(&r, paths[f], b.p, b.n, NEED_TEXT));
            bytes_free(&b);
            size_t before = heap.live_bytes;
            CHECK_INT(read_row(&r), extra <= 0 ? READ_ROW : READ_BAD);
            if (extra > 0) CHECK_TEXT(r.fault.rule, "C3.1");
            CHECK(heap.live_bytes - before < 4u * READ_MAX_ROW);
            CHECK_INT(read_row(&r), READ_ROW);
            CHECK(r.field[FIELD_TEXT].n == 4 && !memcmp(r.field[FIELD_TEXT].p, "last", 4));
            CHECK_INT(read_row(&r), READ_END);
            reader_close(&r);
        }
    }
}

/* Files that touch every state of the readers. */
static const char crafted_csv[] =
    "\xEF\xBB\xBF" "id,symptoms,u,pair,prognosis\r\n"
    "1,plain text,,second,Acne\r\n"
    "\r\n"
    "2,\"quoted, with \"\"both\"\"\r\nand a line\",x,\"\",\"Hepatitis, \"\"B\"\"\"\n"
    "3,stray \" quote,\"u\",p,Flu\n"
    "4,ragged,Flu\n"
    "5,\"behind\"x,u,p,Flu\n"
    "6,caf\xC3\xA9 \xF0\x9F\x98\x80,,,Typhoid\n"
    "7,,,,\n"
    "8,a\rb,u,\"\n\",C";
static const char crafted_jsonl[] =
    "{\"id\":1,\"symptoms\":\"plain\",\"pair\":\"p\",\"prognosis\":\"Acne\"}\r\n"
    "\n"
    "{\"id\":\"a\\u0041\",\"text\":\"esc \\\"q\\\" \\\\ \\ud83d\\ude00\",\"pair\":\"\","
    "\"label\":7}\n"
    "{\"text\":\"t\",\"symptoms\":\"s\",\"pair\":\"p\",\"label\":\"l\",\"prognosis\":\"p\","
    "\"x\":[{},1.5e3]}\n"
    "[\"not\",\"an object\"]\n"
    "{\"symptoms\":\"caf\xC3\xA9\",\"pair\":\"\",\"prognosis\":\"Flu\",\"id\":null,\"y\":true}\n"
    "{\"symptoms\":\"twice\",\"symptoms\":\"twice\",\"pair\":\"\",\"prognosis\":\"A\"}\n"
    "{\"symptoms\":\"end\",\"pair\":\"q\",\"prognosis\":\"B\"}";

/* The same without faults: what a flip breaks is seen. */
static const char clean_csv[] =
    "id,symptoms,u,pair,prognosis\r\n"
    "1,\"quoted, with \"\"both\"\"\r\nand a line\",x,\"\",Acne\r\n"
    "2,caf\xC3\xA9,,p,\"Hepatitis, \"\"B\"\"\"\n";
static const char clean_jsonl[] =
    "{\"id\":1,\"symptoms\":\"pl\\u0061in\",\"pair\":\"p\",\"prognosis\":\"Acne\"}\r\n"
    "{\"text\":\"caf\xC3\xA9 \\n\",\"pair\":\"\",\"label\":7,\"x\":[{},1.5e3]}\n";

typedef struct crafted {
    const char *path, *text;
    size_t      n;
    void (*reference)(const char *p, size_t n, bytes *to);
} crafted;

static const crafted crafted_files[] = {
    {"a.csv", crafted_csv, sizeof crafted_csv - 1, ref_csv},
    {"a.jsonl", crafted_jsonl, sizeof crafted_jsonl - 1, ref_jsonl},
    {"clean.csv", clean_csv, sizeof clean_csv - 1, ref_csv},
    {"clean.jsonl", clean_jsonl, sizeof clean_jsonl - 1, ref_jsonl},
};

/* Reader against reference: 1 when the file was read to its end without a bad row. */
static int same_as_reference(const crafted *c, const char *text, size_t n) {
    reader r;
    bytes  got = {NULL, 0, 0}, want = {NULL, 0, 0};
    self.pair_column = "pair";
    transcribe(&r, open_text(&r, c->path, text, n, NEED_TEXT | NEED_LABEL), &got);
    reader_close(&r);
    c->reference(text, n, &want);
    int same = got.n == want.n && memcmp(got.p, want.p, got.n) == 0;
    int whole = strstr(text_from(&got), "bad ") == NULL && strstr(got.p, "stop") == NULL;
    CHECK(same);
    if (!same && test_failures < 4)
        printf("        read:\n%s        reference:\n%s", got.p, text_from(&want));
    bytes_free(&got);
    bytes_free(&want);
    self.pair_column = NULL;
    return whole;
}

static void test_truncations(void) {
    for (int f = 0; f < COUNT(crafted_files); f++) {
        const crafted *c = &crafted_files[f];
        size_t         whole = 0;
        for (size_t n = 0; n <= c->n; n++) whole += (size_t)same_as_reference(c, c->text, n);
        printf("    %s: %zu truncations: %zu read whole, %zu with a fault; all as the reference\n",
               c->path, c->n + 1, whole, c->n + 1 - whole);
    }
}

static void test_bit_flips(void) {
    for (int f = 0; f < COUNT(crafted_files); f++) {
        const crafted *c = &crafted_files[f];
        char          *text = (char *)malloc(c->n);
        size_t         whole = 0;
        memcpy(text, c->text, c->n);
        for (size_t bit = 0; bit < c->n * 8; bit++) {
            text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
            whole += (size_t)same_as_reference(c, text, c->n);
            text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
        }
        printf("    %s: %zu bit flips: %zu read whole, %zu with a fault; all as the reference\n",
               c->path, c->n * 8, whole, c->n * 8 - whole);
        free(text);
    }
}

/* Random texts of the characters that matter. */
static void test_random_texts(void) {
    static const char alphabet[] = "\"\"\"\",,,\n\n\r\rab \xEF\xBB\xBF{}[]:0\\";
    uint64_t          rnd = test_seed;
    char              text[160];
    for (int i = 0; i < (test_light() ? 2000 : 60000); i++) {
        int    csv = i % 2 == 0;
        size_t n = (size_t)(test_rnd(&rnd) % 60);
        size_t head = (size_t)sprintf(text, "%s", csv ? "symptoms,prognosis,pair\n" : "");
        for (size_t k = 0; k < n; k++)
            text[head + k] = alphabet[test_rnd(&rnd) % (sizeof alphabet - 1)];
        same_as_reference(&crafted_files[!csv], text, head + n);
    }
}

/* The size of the blocks that read() gives changes nothing. */
static void test_blocks(void) {
    self.pair_column = "pair";
    for (int f = 0; f < COUNT(crafted_files); f++) {
        const crafted *c = &crafted_files[f];
        bytes          want = {NULL, 0, 0};
        c->reference(c->text, c->n, &want);
        for (test_block = 1; test_block <= c->n + 1; test_block++) {
            bytes  got = {NULL, 0, 0};
            reader r;
            transcribe(&r, open_stream(&r, c->path, c->text, c->n, NEED_TEXT | NEED_LABEL), &got);
            CHECK(got.n == want.n && memcmp(got.p, want.p, got.n) == 0);
            CHECK_INT(r.base + r.at, c->n);
            reader_close(&r);
            bytes_free(&got);
        }
        bytes_free(&want);
    }
    test_block = 65536;
    self.pair_column = NULL;
}

/* Every allocation fails once, and from there on: the same rows, or a stop with "out of memory";
 * everything is given back, and wiped. */
static void test_allocations(void) {
    static char wide[2][8192]; /* rows with fields that grow */
    size_t      refused = 0, sweeps = 0;
    crafted     files[6];
    self.pair_column = "pair";
    test_block = 16;
    memcpy(files, crafted_files, sizeof crafted_files);
    files[4].path = "wide.csv";
    files[4].n = (size_t)snprintf(wide[0], sizeof wide[0], "id,symptoms,pair,label\n"
                                  "%0900d,%01800d,%0700d,\"%0600d\"\n", 1, 2, 3, 4);
    files[5].path = "wide.jsonl";
    files[5].n = (size_t)snprintf(wide[1], sizeof wide[1], "{\"id\":\"%0900d\",\"text\":"
                                  "\"%01800d\",\"pair\":\"%0700d\",\"label\":\"%0600d\"}\n",
                                  1, 2, 3, 4);
    for (int f = 0; f < 2; f++) files[4 + f].text = wide[f];
    for (int f = 0; f < COUNT(files); f++) {
        const crafted *c = &files[f];
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            for (size_t fail = 1, more = 1; more; fail++) {
                reader r;
                memset(&heap, 0, sizeof heap);
                heap.fail_at = fail;
                heap.for_ever = for_ever;
                int started = open_stream(&r, c->path, c->text, c->n, NEED_TEXT | NEED_LABEL);
                read_result got = started ? READ_ROW : READ_FAILED;
                while (got == READ_ROW || got == READ_BAD) got = read_row(&r);
                more = heap.calls >= fail;
                CHECK_INT(got, more ? READ_FAILED : READ_END);
                if (more) CHECK_INT(r.fault.code, END_RUN);
                if (more) CHECK_TEXT(r.fault.rule, "memory");
                refused += got == READ_FAILED;
                sweeps++;
                reader_close(&r);
                CHECK_INT(heap.live_bytes, 0);
            }
        }
    }
    memset(&heap, 0, sizeof heap);
    CHECK_INT(unwiped, 0);
    printf("    %zu sweeps, %zu ended with \"out of memory\", none lost a byte\n", sweeps, refused);
    test_block = 65536;
    self.pair_column = NULL;
}

/* C3: memory does not depend on the number of rows. */
static void test_constant_memory(void) {
    for (int f = 0; f < 3; f++) {
        static const char *const paths[] = {"a.csv", "a.jsonl", "a.txt"};
        size_t peak[2];
        for (int many = 0; many < 2; many++) {
            bytes  b = {NULL, 0, 0};
            reader r;
            ref_say(&b, f == 0 ? "text\n" : "");
            for (int i = 0; i < (many ? 20000 : 2000); i++)
                ref_say(&b, f == 1 ? "{\"text\":\"some words of a note\"}\n"
                                   : "some words of a note\n");
            CHECK(open_stream(&r, paths[f], b.p, b.n, NEED_TEXT));
            heap.peak_bytes = heap.live_bytes;
            size_t before = heap.live_bytes;
            while (read_row(&r) == READ_ROW) {}
            CHECK_INT(r.rows, many ? 20000 : 2000);
            peak[many] = heap.peak_bytes - before;
            reader_close(&r);
            bytes_free(&b);
        }
        CHECK_INT(peak[0], peak[1]);
    }
}

/* A descriptor that cannot be read: C3.2, exit 4. */
static void test_unreadable(void) {
    reader r;
    memset(&r, 0, sizeof r);
    r.path = "a.csv";
    r.fd = open(".", O_RDONLY);
    CHECK_INT(reader_start(&r, NEED_TEXT), 0);
    CHECK_TEXT(r.fault.rule, "C3.2");
    CHECK_INT(r.fault.code, END_DATA);
    reader_close(&r);
}

/* UTF-8 against the reference decoder, all sequences of up to three bytes. */
static void test_utf8(void) {
    uint64_t rnd = test_seed;
    for (uint32_t i = 0; i < 1u << 24; i += test_light() ? 61 : 1) {
        char     p[4] = {(char)(i >> 16), (char)(i >> 8), (char)i, (char)test_rnd(&rnd)};
        char     good[4];
        uint32_t code;
        size_t   n = utf8_next(p, 4, &code), bytes_good = 0;
        ref_in   in = {(const unsigned char *)p, 4, 0, 0, 0};
        int      ascii = (unsigned char)p[0] < 0x80;
        int      valid = ascii || ref_utf8(&in, good, &bytes_good);
        if (ascii) bytes_good = 1;
        if (valid ? n != bytes_good : code != 0xFFFD || n < 1 || n > 3) {
            FAIL("as the reference decoder");
            return;
        }
    }
}

static bytes sink_text(sink *s) {
    bytes b = s->b;
    if (!bytes_add(&b, "", 1)) abort();
    memset(s, 0, sizeof *s);
    s->fd = -1;
    return b;
}

/* JSON strings: random bytes come back, bad ones as U+FFFD; no control or direction mark stands
 * in the output. */
static void test_json_out(void) {
    uint64_t rnd = test_seed;
    sink     s = {-1, {NULL, 0, 0}, "", NULL};
    put_json(&s, "a\"\\\n\x7F\xE2\x80\xA8\xE2\x80\xAE\xD8\x9C\xFF\xC3\xA9", 16);
    bytes b = sink_text(&s);
    CHECK_TEXT(b.p, "\"a\\\"\\\\\\u000a\\u007f\\u2028\\u202e\\u061c\xEF\xBF\xBD\xC3\xA9\"");
    bytes_free(&b);
    for (int i = 0; i < 20000; i++) {
        char   text[24];
        size_t n = (size_t)(test_rnd(&rnd) % sizeof text);
        for (size_t k = 0; k < n; k++) {
            uint64_t x = test_rnd(&rnd);
            text[k] = (char)(x % 3 ? x >> 8 : (x >> 8) % 64 + 128);
        }
        put_json(&s, text, n);
        b = sink_text(&s);
        ref   *tree = ref_parse(b.p, b.n - 1);
        bytes  want = {NULL, 0, 0};
        for (size_t k = 0; k < n;) {
            uint32_t code;
            size_t   length = utf8_next(text + k, n - k, &code);
            if (code == 0xFFFD) bytes_add(&want, "\xEF\xBF\xBD", 3);
            else bytes_add(&want, text + k, length);
            k += length;
        }
        CHECK(tree != NULL && tree->kind == 's' && tree->bytes == want.n &&
              (want.n == 0 || memcmp(tree->text, want.p, want.n) == 0));
        for (size_t k = 0; k + 1 < b.n; k++) CHECK((unsigned char)b.p[k] >= 32 && b.p[k] != 127);
        ref_free(tree);
        bytes_free(&want);
        bytes_free(&b);
    }
}

/* Cells: what a spreadsheet would run is neutralised (CWE-1236), CSV comes back through the
 * reference reader. */
static void test_cells(void) {
    static const struct { const char *cell, *csv, *tsv; } cases[] = {
        {"plain", "plain", "plain"},
        {"", "", ""},
        {"a,b", "\"a,b\"", "a,b"},
        {"a\"b", "\"a\"\"b\"", "a\"b"},
        {"a\nb", "\"a\nb\"", "a\\nb"},
        {"a\tb", "a\tb", "a\\tb"},
        {"=1+1", "'=1+1", "'=1+1"},
        {"+1", "'+1", "'+1"},
        {"-1", "'-1", "'-1"},
        {"@x", "'@x", "'@x"},
        {"\tx", "'\tx", "'\\tx"},
        {"\rx", "\"'\rx\"", "'\\rx"},
        {"=\"a\"", "\"'=\"\"a\"\"\"", "'=\"a\""},
        {"1=1", "1=1", "1=1"},
    };
    sink s = {-1, {NULL, 0, 0}, "", NULL};
    for (int i = 0; i < COUNT(cases); i++) {
        put_cell(&s, cases[i].cell, strlen(cases[i].cell), ',');
        bytes b = sink_text(&s);
        CHECK_TEXT(b.p, cases[i].csv);
        bytes_free(&b);
        put_cell(&s, cases[i].cell, strlen(cases[i].cell), '\t');
        b = sink_text(&s);
        CHECK_TEXT(b.p, cases[i].tsv);
        bytes_free(&b);
    }
}

/* Option names, distances, classes in order, numbers of rows. */
static void test_small_parts(void) {
    CHECK(has_name("batch-size n_runs", "batch_size", 10));
    CHECK(has_name("batch-size n_runs", "n-runs", 6));
    CHECK(!has_name("batch-size n_runs", "batch", 5));
    CHECK(!has_name("batch-size n_runs", "size", 4));
    CHECK(!has_name("batch-size n_runs", "batch-sizes", 11));
    CHECK_INT(edit_distance("kitten", 6, "sitting", 7), 3);
    CHECK_INT(edit_distance("", 0, "abc", 3), 3);
    CHECK_INT(edit_distance("abc", 3, "abc", 3), 0);
    static const float prob[] = {0.1f, 0.4f, 0.1f, 0.4f, 0.0f};
    int32_t            order[5];
    for (int top = 1; top <= 5; top++) {
        static const int32_t want[] = {1, 3, 0, 2, 4};
        rank_classes(prob, 5, top, order);
        CHECK(memcmp(order, want, (size_t)top * sizeof *want) == 0);
    }
    static const struct { const char *text; int number; } ids[] = {
        {"0", 1}, {"17", 1}, {"007", 0}, {"-1", 0}, {"1.5", 0}, {"", 0}, {"a", 0},
        {"999999999999999999", 1}, {"9999999999999999999", 0},
    };
    for (int i = 0; i < COUNT(ids); i++) {
        bytes b = {NULL, 0, 0};
        bytes_add(&b, ids[i].text, strlen(ids[i].text));
        CHECK_INT(is_number(&b), ids[i].number);
        bytes_free(&b);
    }
}

/* Rule V4: what may be the name of a class. */
static void test_labels(void) {
    static const struct { const char *text; size_t n; int good; } tries[] = {
        {"Flu", 3, 1}, {"", 0, 0}, {"a\nb", 3, 0}, {"a\x7F", 2, 0}, {"a\0", 2, 0},
        {"\xC3\xA9", 2, 1}, {"a\xC3", 2, 0}, {"\xFFx", 2, 0}, {"\xED\xA0\x80", 3, 0},
        {"\xEF\xBF\xBD", 3, 1}, {"\xF0\x9F\x98\x80", 4, 1}, {"\xF0\x9F\x98", 3, 0},
    };
    label_entry *names = NULL;
    bytes        b = {NULL, 0, 0};
    for (int i = 0; i < COUNT(tries); i++) {
        b.n = 0;
        bytes_add(&b, tries[i].text, tries[i].n);
        CHECK_INT(label_index(&names, &b) >= 0, tries[i].good);
    }
    CHECK_INT(shlen(names), 4);
    for (b.n = 0; b.n < MAX_LABEL;) bytes_add(&b, "L", 1);
    CHECK_INT(label_index(&names, &b), 4);
    bytes_add(&b, "L", 1);
    CHECK_INT(label_index(&names, &b), -1);
    bytes_free(&b);
    shfree(names);
}

/* The 99th percentile is the nearest rank: of 3 times the longest, of 100 the 99th. */
static void test_timing(void) {
    static const int want[][2] = {{1, 1}, {3, 3}, {100, 99}, {101, 100}, {200, 198}};
    for (int i = 0; i < COUNT(want); i++) {
        double *times = NULL;
        for (int k = want[i][0]; k > 0; k--) arrput(times, k * 1e-3);
        CHECK(timing_of(times, 1).p99 == want[i][1] * 1e-3 * 1e3);
        arrfree(times);
    }
}

/* Figures of an evaluation against their definitions, on 500 random rows of 7 classes. */
static void test_score(void) {
    enum { K = 7, N = 500 };
    uint64_t rnd = test_seed;
    score    s;
    double   nll = 0, f1 = 0, present = 0, sure[SCORE_BINS] = {0}, right[SCORE_BINS] = {0}, ece = 0;
    int      table[K][K] = {{0}}, hits = 0;
    memset(&s, 0, sizeof s);
    s.classes = K;
    arrsetlen(s.of, K);
    memset(s.of, 0, K * sizeof *s.of);
    for (int i = 0; i < N; i++) {
        float  logits[K], prob[K];
        double sum = 0;
        int    best = 0, label = (int)(test_rnd(&rnd) % (K - 1)); /* class 6 never occurs */
        for (int k = 0; k < K; k++) logits[k] = 3 * test_rndf(&rnd) - (k == 6 ? 50 : 0);
        for (int k = 0; k < K; k++) sum += exp((double)logits[k]);
        for (int k = 0; k < K; k++) prob[k] = (float)(exp((double)logits[k]) / sum);
        for (int k = 0; k < K; k++) best = prob[k] > prob[best] ? k : best;
        score_row(&s, label, prob, logits);
        nll -= log(exp((double)logits[label]) / sum) / (double)N;
        hits += best == label;
        table[label][best]++;
        int bin = (int)((double)prob[best] * (double)SCORE_BINS);
        sure[bin < SCORE_BINS ? bin : SCORE_BINS - 1] += (double)prob[best];
        right[bin < SCORE_BINS ? bin : SCORE_BINS - 1] += best == label;
    }
    for (int k = 0; k < K; k++) {
        double labelled = 0, predicted = 0;
        for (int j = 0; j < K; j++) labelled += table[k][j], predicted += table[j][k];
        if (labelled + predicted == 0) continue;
        double precision = predicted > 0 ? table[k][k] / predicted : 0;
        double recall = labelled > 0 ? table[k][k] / labelled : 0;
        f1 += precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
        present++;
    }
    for (int b = 0; b < SCORE_BINS; b++) ece += fabs(right[b] - sure[b]) / (double)N;
    CHECK(present == K - 1);
    CHECK(fabs(score_accuracy(&s) - hits / (double)N) < 1e-12);
    CHECK(fabs(score_macro_f1(&s) - f1 / present) < 1e-12);
    CHECK(fabs(score_nll(&s) - nll) < 1e-9);
    CHECK(fabs(score_ece(&s) - ece) < 1e-9);
    CHECK_INT(score_worst_pairs(&s), SCORE_PAIRS);
    uint64_t first = s.pairs[0].key;
    int      most = table[first / K][first % K];
    CHECK_INT(s.pairs[0].value, most);
    for (int i = 0; i < K * K; i++) CHECK(i / K == i % K || table[i / K][i % K] <= most);
    arrfree(s.of);
    hmfree(s.pairs);
}

static const test tests_readers[] = {
    {"readers_csv_rules", test_csv_rules},
    {"readers_jsonl_rules", test_jsonl_rules},
    {"readers_lines_rules", test_lines_rules},
    {"readers_column_limit", test_column_limit},
    {"readers_row_limit", test_row_limit},
    {"readers_truncations", test_truncations},
    {"readers_bit_flips", test_bit_flips},
    {"readers_random_texts", test_random_texts},
    {"readers_blocks", test_blocks},
    {"readers_allocations", test_allocations},
    {"readers_constant_memory", test_constant_memory},
    {"readers_unreadable", test_unreadable},
    {"writers_utf8", test_utf8},
    {"writers_json", test_json_out},
    {"writers_cells", test_cells},
    {"programs_small_parts", test_small_parts},
    {"programs_labels", test_labels},
    {"programs_timing", test_timing},
    {"programs_score", test_score},
};

int main(int argc, char **argv) {
    (void)test_isa;
    const char *filter = argc > 1 && strncmp(argv[1], "--filter=", 9) == 0 ? argv[1] + 9 : "";
    int         passed = 0, failed = 0;
    if (argc > 1 && *filter == 0)
        return fprintf(stderr, "usage: %s [--filter=TEXT,...]\n", argv[0]), 2;
    for (int i = 0; i < COUNT(tests_readers); i++) {
        if (*filter != 0 && !test_listed(filter, tests_readers[i].name)) continue;
        test_failures = 0;
        tests_readers[i].run();
        printf("%s %s\n", test_failures ? "FAIL" : "ok  ", tests_readers[i].name);
        fflush(stdout);
        if (test_failures) failed++;
        else passed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
