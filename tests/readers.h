/* readers.h -- the CSV and JSONL readers of examples/rows.h over bytes in memory, and a second,
 * simple reader of RFC 4180 to compare the first with. For test_readers.c and two fuzz targets. */
#ifndef READERS_H
#define READERS_H

#define _GNU_SOURCE 1
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include "../examples/common.h"
#include "../examples/rows.h"

typedef struct outcome {
    int      rows, bad, failed; /* failed: the file ended by a fault */
    uint64_t digest;            /* of the texts of good rows */
    char     rule[12];          /* of the first fault */
    uint64_t line, place;
} outcome;

static uint64_t digest_add(uint64_t digest, const void *data, size_t n) { /* FNV-1a */
    const unsigned char *p = (const unsigned char *)data;
    digest = (digest ^ n) * 0x100000001B3u;
    for (size_t i = 0; i < n; i++) digest = (digest ^ p[i]) * 0x100000001B3u;
    return digest;
}

static void note_fault(outcome *o, const reader *r) {
    if (o->rule[0] != 0) return;
    snprintf(o->rule, sizeof o->rule, "%s", r->fault.rule);
    o->line = r->fault.line;
    o->place = r->fault.place;
}

static outcome read_all(const char *text, size_t n, read_format format) {
    outcome o;
    reader  r;
    memset(&o, 0, sizeof o);
    memset(&r, 0, sizeof r);
    self.input_format = (int32_t)format;
    r.path = "test";
    r.fd = -1;
    if (!bytes_add(&r.in, text, n)) abort();
    if (!reader_start(&r, NEED_TEXT)) {
        o.failed = 1;
        note_fault(&o, &r);
    }
    for (read_result result = READ_ROW; !o.failed;) {
        result = read_row(&r);
        if (result == READ_END) break;
        if (result == READ_FAILED) o.failed = 1;
        if (result == READ_BAD) o.bad++;
        if (result != READ_ROW) note_fault(&o, &r);
        if (result != READ_ROW) continue;
        dp_text t = text_of_row(&r);
        o.rows++;
        o.digest = digest_add(o.digest, t.a, t.a_bytes);
    }
    reader_close(&r);
    return o;
}

/* ---- the reference ------------------------------------------------------------------------ */

/* One record of RFC 4180 from at on: its fields are copied one behind the other. */
typedef struct record {
    char   text[8192];
    size_t end[64];
    int    fields, nul, junk, open, blank;
} record;

static size_t reference_record(const char *p, size_t n, size_t at, record *rec) {
    size_t used = 0, start = at;
    memset(rec, 0, sizeof *rec);
    for (;;) {
        int quoted = at < n && p[at] == '"';
        if (quoted) at++;
        for (;; at++) {
            if (at == n) break;
            if (quoted && p[at] == '"') {
                if (at + 1 == n || p[at + 1] != '"') break;
                at++;
            } else if (!quoted && (p[at] == ',' || p[at] == '\n')) {
                break;
            } else if (!quoted && p[at] == '\r' && at + 1 < n && p[at + 1] == '\n') {
                break;
            }
            if (p[at] == 0) rec->nul = 1;
            rec->text[used++] = p[at];
        }
        if (quoted && at == n) rec->open = 1;
        if (quoted && at < n) {
            at++;
            while (at < n && p[at] != ',' && p[at] != '\n' &&
                   !(p[at] == '\r' && at + 1 < n && p[at + 1] == '\n')) {
                if (p[at] == 0) rec->nul = 1;
                rec->junk = 1;
                at++;
            }
        }
        rec->end[rec->fields++] = used;
        if (at == n || p[at] != ',' || rec->fields == 64) break;
        at++;
    }
    if (at < n && p[at] == '\r') at++;
    rec->blank = rec->fields == 1 && used == 0 && at - start <= 1;
    return at < n ? at + 1 : at;
}

/* Rows, bad rows and digest of a CSV whose text stands in the column "symptoms" or "text". */
static outcome reference_csv(const char *p, size_t n) {
    static record rec;
    outcome       o;
    int           columns = 0, column = -1, second = -1;
    size_t        at = n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    memset(&o, 0, sizeof o);
    while (at < n && !o.failed) {
        at = reference_record(p, n, at, &rec);
        if (rec.blank) continue;
        if (rec.open) {
            o.failed = 1;
        } else if (columns == 0) {
            columns = rec.fields;
            for (int f = 0; f < columns; f++) {
                size_t from = f > 0 ? rec.end[f - 1] : 0, len = rec.end[f] - from;
                if (len == 8 && memcmp(rec.text + from, "symptoms", 8) == 0) {
                    if (column >= 0) o.failed = 1;
                    column = f;
                }
                if (len == 4 && memcmp(rec.text + from, "text", 4) == 0) second = f;
            }
            if (column < 0) column = second;
            if (column < 0 || rec.nul || rec.junk) o.failed = 1;
        } else if (rec.nul || rec.junk || rec.fields != columns) {
            o.bad++;
        } else {
            size_t from = column > 0 ? rec.end[column - 1] : 0;
            o.rows++;
            o.digest = digest_add(o.digest, rec.text + from, rec.end[column] - from);
        }
    }
    return o;
}
#endif
