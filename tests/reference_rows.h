/* reference_rows.h -- second, independent readers of CSV and JSONL for the tests: the whole text in
 * memory, no streaming, no limits. What examples/rows.h reads must be what these read. Both write
 * a transcript:
 *     row LINE "text" "pair" "label" "id"      a field that is absent is -
 *     bad LINE                                 a row that fails alone
 *     stop                                     the file cannot be read further
 *     end
 * Needs reference_json.h and a growable `bytes` with bytes_add. */
#ifndef REFERENCE_ROWS_H
#define REFERENCE_ROWS_H

typedef struct ref_row {
    bytes field[4]; /* text, pair, label, id */
    int   has[4], bad;
} ref_row;

static void ref_say(bytes *to, const char *text) {
    bytes_add(to, text, strlen(text));
}

static void ref_say_line(bytes *to, const char *word, size_t line) {
    char text[64];
    snprintf(text, sizeof text, "%s %zu", word, line);
    ref_say(to, text);
}

static void ref_say_row(bytes *to, size_t line, const ref_row *row) {
    ref_say_line(to, row->bad ? "bad" : "row", line);
    for (int f = 0; f < 4 && !row->bad; f++) {
        ref_say(to, row->has[f] ? " \"" : " -");
        if (row->has[f]) bytes_add(to, row->field[f].p, row->field[f].n);
        if (row->has[f]) ref_say(to, "\"");
    }
    ref_say(to, "\n");
}

static void ref_row_free(ref_row *row) {
    for (int f = 0; f < 4; f++) bytes_free(&row->field[f]);
    memset(row, 0, sizeof *row);
}

/* Where the field that begins at AT ends: its comma, its line feed, or n. A quoted field hides both
 * up to its closing quote. SIZE_MAX: it has none. */
static size_t ref_field_end(const char *p, size_t n, size_t at, size_t *closing) {
    *closing = SIZE_MAX;
    if (at < n && p[at] == '"') {
        for (size_t q = at + 1; *closing == SIZE_MAX; q++) {
            if (q >= n) return SIZE_MAX;
            if (p[q] != '"') continue;
            if (q + 1 < n && p[q + 1] == '"') q++;
            else *closing = q;
        }
        at = *closing + 1;
    }
    while (at < n && p[at] != ',' && p[at] != '\n') at++;
    return at;
}

/* Splits the record at *AT into fields: their number, or 0 when a quote is never closed. Blank: 1
 * when the record is an empty line. */
static size_t ref_record(const char *p, size_t n, size_t *at, bytes *fields, size_t cap, int *bad,
                         int *blank) {
    size_t count = 0, begin = *at;
    *bad = 0;
    for (;;) {
        size_t closing, from = begin, end = ref_field_end(p, n, begin, &closing);
        if (end == SIZE_MAX) return 0;
        int    feed = end < n && p[end] == '\n' && end > begin && p[end - 1] == '\r';
        size_t stop = end - (size_t)feed;
        bytes  field = {NULL, 0, 0};
        if (closing != SIZE_MAX) {
            if (stop != closing + 1) *bad = 1;
            for (from = begin + 1; from < closing; from += p[from] == '"' ? 2u : 1u)
                bytes_add(&field, p + from, 1);
        } else if (stop > begin) {
            bytes_add(&field, p + begin, stop - begin);
        }
        if (stop > begin && memchr(p + begin, 0, stop - begin)) *bad = 1;
        /* A carriage return before a line feed inside quotes is text: it stays as it is. */
        if (count < cap) fields[count] = field;
        else bytes_free(&field);
        *blank = count == 0 && closing == SIZE_MAX && stop == begin;
        count++;
        begin = end + 1;
        if (end >= n || p[end] == '\n') break;
    }
    *blank = *blank && count == 1;
    *at = begin < n ? begin : n;
    return count;
}

static size_t ref_lines(const char *p, size_t from, size_t to) {
    size_t n = 0;
    for (; from < to; from++) n += p[from] == '\n';
    return n;
}

#ifndef REF_COLUMNS
#define REF_COLUMNS 64 /* of a test file at most */
#endif

/* Which column holds a field: the first name that occurs; -1: none, -2: twice. */
static int ref_column(const bytes *names, size_t count, const char *first, const char *second) {
    const char *wanted[2] = {first, second};
    for (int k = 0; k < 2; k++) {
        int found = -1;
        for (size_t c = 0; c < count && wanted[k] != NULL; c++)
            if (names[c].n == strlen(wanted[k]) && !memcmp(names[c].p, wanted[k], names[c].n))
                found = found == -1 ? (int)c : -2;
        if (found != -1) return found;
    }
    return -1;
}

/* Transcript of a CSV with a column for text (symptoms or text), label (prognosis or label) and,
 * if there, pair and id. */
static void ref_csv(const char *p, size_t n, bytes *to) {
    bytes  fields[REF_COLUMNS];
    size_t at = n >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3) ? 3 : 0, line = 1, columns = 0;
    int    place[4] = {-1, -1, -1, -1}, bad, blank;
    while (at < n) {
        size_t start = at, count;
        memset(fields, 0, sizeof fields);
        count = ref_record(p, n, &at, fields, REF_COLUMNS, &bad, &blank);
        if (count == 0) {
            for (size_t c = 0; c < REF_COLUMNS; c++) bytes_free(&fields[c]);
            ref_say(to, "stop\n");
            return;
        }
        if (!blank && columns == 0) {
            static const char *const names[4][2] = {
                {"symptoms", "text"}, {"pair", NULL}, {"prognosis", "label"}, {"id", NULL}};
            for (int f = 0; f < 4; f++) {
                place[f] = ref_column(fields, count, names[f][0], names[f][1]);
                if (place[f] == -2 || (place[f] == -1 && f != 3)) bad = 1;
            }
            columns = count;
            if (bad) ref_say(to, "stop\n");
        } else if (!blank) {
            ref_row row;
            memset(&row, 0, sizeof row);
            row.bad = bad || count != columns;
            for (int f = 0; f < 4 && !row.bad; f++) {
                row.has[f] = place[f] >= 0;
                if (place[f] >= 0 && fields[place[f]].n > 0)
                    bytes_add(&row.field[f], fields[place[f]].p, fields[place[f]].n);
            }
            ref_say_row(to, line, &row);
            ref_row_free(&row);
            bad = 0;
        } else {
            bad = 0;
        }
        for (size_t c = 0; c < count && c < REF_COLUMNS; c++) bytes_free(&fields[c]);
        line += ref_lines(p, start, at);
        if (bad) return;
    }
    ref_say(to, "end\n");
}

/* Puts the members of one line into a row. */
static void ref_jsonl_row(const char *p, size_t n, ref_row *row) {
    static const char *const names[4][2] = {
        {"symptoms", "text"}, {"pair", NULL}, {"prognosis", "label"}, {"id", NULL}};
    ref_in in = {(const unsigned char *)p, n, 0, 0, 0};
    ref   *tree = ref_value(&in);
    int    times[4][2] = {{0}};
    ref_blank(&in);
    row->bad = tree == NULL || in.at != n || tree->kind != '{';
    for (const ref *m = row->bad ? NULL : tree->child; m != NULL; m = m->next) {
        for (int f = 0; f < 4; f++) {
            for (int k = 0; k < 2 && names[f][k] != NULL; k++) {
                if (m->key_bytes != strlen(names[f][k]) ||
                    memcmp(m->key, names[f][k], m->key_bytes) != 0) continue;
                if (times[f][k]++ > 0) row->bad = 1;
                if (m->kind == '0' && f != 0) continue;
                if (m->kind != 's' && !(m->kind == 'n' && f >= 2)) row->bad = 1;
                if (row->bad || (k == 1 && row->has[f])) continue;
                row->has[f] = 1;
                row->field[f].n = 0;
                bytes_add(&row->field[f], m->text, m->bytes);
            }
        }
    }
    for (int f = 0; f < 3; f++)
        if (!row->has[f]) row->bad = 1;
    ref_free(tree);
}

static void ref_jsonl(const char *p, size_t n, bytes *to) {
    size_t at = n >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3) ? 3 : 0;
    for (size_t line = 1; at < n; line++) {
        const char *feed = (const char *)memchr(p + at, '\n', n - at);
        size_t      end = feed != NULL ? (size_t)(feed - p) : n, blank = at;
        while (blank < end && strchr(" \t\r", p[blank]) && p[blank] != 0) blank++;
        if (blank < end) {
            ref_row row;
            memset(&row, 0, sizeof row);
            ref_jsonl_row(p + at, end - at, &row);
            ref_say_row(to, line, &row);
            ref_row_free(&row);
        }
        at = end + 1;
    }
    ref_say(to, "end\n");
}

/* The same transcript from a reader of examples/rows.h that has been started. */
static void transcribe(reader *r, int started, bytes *to) {
    read_result got = started ? READ_ROW : READ_FAILED;
    while (got != READ_FAILED && (got = read_row(r)) != READ_END && got != READ_FAILED) {
        ref_row row;
        memset(&row, 0, sizeof row);
        row.bad = got == READ_BAD;
        for (int f = 0; f < 4; f++) {
            row.has[f] = r->kind[f] != ABSENT;
            row.field[f] = r->field[f]; /* borrowed */
        }
        ref_say_row(to, (size_t)r->row_line, &row);
    }
    ref_say(to, got == READ_END ? "end\n" : "stop\n");
}

#endif
