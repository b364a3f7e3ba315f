/* test_readers.c -- the CSV and JSONL readers of the programs: a negative file for each rule,
 * truncation at every byte, every single-bit flip, the limit of a row. */
#include "readers.h"

static int passed, failed;

static void check(const char *name, int truth) {
    if (truth) passed++;
    else failed++;
    printf("%s %s\n", truth ? "ok  " : "FAIL", name);
}

typedef struct bad_file {
    const char *name, *text;
    size_t      n;
    read_format format;
    const char *rule;
    uint64_t    line, place;
    int         rows, bad, failed;
} bad_file;
#define T(s) s, sizeof(s) - 1

static const bad_file bad_files[] = {
    {"open quote", T("symptoms\na\n\"b\n"), FORMAT_CSV, "C1.1", 3, 11, 1, 0, 1},
    {"text behind a quote", T("symptoms\n\"a\"b\nc\n"), FORMAT_CSV, "C1.2", 2, 12, 1, 1, 0},
    {"NUL", T("symptoms\na\0b\nc\n"), FORMAT_CSV, "C1.3", 2, 10, 1, 1, 0},
    {"NUL in quotes", T("symptoms\n\"a\0b\"\nc\n"), FORMAT_CSV, "C1.3", 2, 11, 1, 1, 0},
    {"a field too few", T("symptoms,x\na\nb,c\n"), FORMAT_CSV, "C1.4", 2, 11, 1, 1, 0},
    {"a field too many", T("symptoms,x\na,b,c\nb,c\n"), FORMAT_CSV, "C1.4", 2, 11, 1, 1, 0},
    {"no such column", T("words\na\n"), FORMAT_CSV, "C1.5", 1, 0, 0, 0, 1},
    {"column twice", T("symptoms,symptoms\na,b\n"), FORMAT_CSV, "C1.6", 1, 0, 0, 0, 1},
    {"an empty file has no rows", T(""), FORMAT_CSV, "", 0, 0, 0, 0, 0},
    {"no object", T("[1]\n{\"symptoms\":\"a\"}\n"), FORMAT_JSONL, "L1", 1, 0, 1, 1, 0},
    {"key twice", T("{\"symptoms\":\"a\",\"symptoms\":\"b\"}\n"), FORMAT_JSONL, "L2", 1, 28, 0,
     1, 0},
    {"a number for a text", T("{\"symptoms\":[1]}\n"), FORMAT_JSONL, "L3", 1, 12, 0, 1, 0},
    {"key missing", T("{\"word\":\"a\"}\n"), FORMAT_JSONL, "L4", 1, 0, 0, 1, 0},
    {"not JSON", T("{\"symptoms\":}\n{\"symptoms\":\"b\"}\n"), FORMAT_JSONL, "J1", 1, 12, 1, 1, 0},
};

static void test_rules(void) {
    for (int i = 0; i < COUNT(bad_files); i++) {
        const bad_file *b = &bad_files[i];
        outcome         o = read_all(b->text, b->n, b->format);
        int same = strcmp(o.rule, b->rule) == 0 && o.line == b->line && o.place == b->place &&
                   o.rows == b->rows && o.bad == b->bad && o.failed == b->failed;
        check(b->name, same);
        if (!same)
            printf("    rule %s line %u byte %u, %d rows, %d bad, failed %d\n", o.rule,
                   (unsigned)o.line, (unsigned)o.place, o.rows, o.bad, o.failed);
    }
}

static const char csv[] = "\xEF\xBB\xBFid,symptoms,prognosis\r\n1,plain text,Flu\r\n"
                          "2,\"quoted, with \"\"quotes\"\"\r\nand a line\",\"Cold\"\r\n\r\n"
                          "3,,Flu\n4,\"\",Flu\n5,caf\xC3\xA9 a\"b,Flu\n6,last,Flu";
static const char jsonl[] = "{\"symptoms\":\"fever\",\"prognosis\":\"Flu\"}\n\n"
                            "{\"id\":7,\"symptoms\":\"a\\n\\u00e9\"}\r\n{\"text\":\"\",\"x\":[1]}";

static void damage(const char *name, const char *text, size_t n, read_format format) {
    char     copy[512];
    unsigned good = 0, refused = 0, wrong = 0;
    for (size_t i = 0; i < n + 8 * n; i++) {
        size_t bytes = i < n ? i : n;
        memcpy(copy, text, n);
        if (i >= n) copy[(i - n) / 8] = (char)(copy[(i - n) / 8] ^ (1 << (i - n) % 8));
        outcome o = read_all(copy, bytes, format);
        if (o.failed || o.bad > 0) refused++;
        else good++;
        if (format != FORMAT_CSV) {
            wrong += (o.failed || o.bad > 0) != (o.rule[0] != 0);
            continue;
        }
        outcome want = reference_csv(copy, bytes);
        int same = o.failed == want.failed &&
                   (o.failed || (o.rows == want.rows && o.bad == want.bad &&
                                 o.digest == want.digest));
        if (!same && wrong++ < 3)
            printf("    %s %u: %d %d %d, expected %d %d %d\n", i < n ? "cut at" : "bit",
                   (unsigned)(i < n ? i : i - n), o.rows, o.bad, o.failed, want.rows, want.bad,
                   want.failed);
    }
    printf("    %s: %u refused, %u accepted with the expected rows\n", name, refused, good);
    check(name, wrong == 0 && refused > 20 && good > 20);
}

static void test_whole(void) {
    outcome o = read_all(csv, sizeof csv - 1, FORMAT_CSV);
    outcome want = reference_csv(csv, sizeof csv - 1);
    check("csv: six rows as the reference reads them",
          o.rows == 6 && o.bad == 0 && !o.failed && o.digest == want.digest);
    o = read_all(jsonl, sizeof jsonl - 1, FORMAT_JSONL);
    check("jsonl: three rows", o.rows == 3 && o.bad == 0 && !o.failed);
    o = read_all(T("a\n\nb\r\nc"), FORMAT_LINES);
    check("lines: three rows", o.rows == 3 && o.bad == 0 && !o.failed);
}

/* A field of 64 MiB - 1, 64 MiB and more: the row is lost alone, the next one is read. */
static void test_limits(void) {
    for (int more = -1; more <= 1; more++) {
        size_t n = 0, head = 9, field = (size_t)READ_MAX_ROW + (size_t)more - 1; /* and its LF */
        char  *text = (char *)malloc(head + field + 4);
        memcpy(text, "symptoms\n", head);
        memset(text + head, 'a', field);
        n = head + field;
        memcpy(text + n, "\nb\n", 3);
        outcome o = read_all(text, n + 3, FORMAT_CSV);
        check(more > 0 ? "a row over 64 MiB" : "a row of 64 MiB at most",
              !o.failed && o.bad == (more > 0) && o.rows == 2 - (more > 0) &&
                  strcmp(o.rule, more > 0 ? "C3.1" : "") == 0);
        free(text);
    }
}

int main(void) {
    start_program("test_readers");
    test_whole();
    test_rules();
    damage("csv cut and flipped", csv, sizeof csv - 1, FORMAT_CSV);
    damage("jsonl cut and flipped", jsonl, sizeof jsonl - 1, FORMAT_JSONL);
    test_limits();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
