/* rows.h -- how the programs read rows: CSV, JSONL and plain lines as streams, and data sets with
 * labels in memory. Include it once, after common.h.
 *
 * A reader gives one row after the other; memory depends on the longest row (64 MiB at most),
 * never on their number. Rules; "file" ends the reading, "row" loses that row alone (the
 * header ends it):
 *
 *   C1.1 file  a quote is open at the end                C3.1 row   over 64 MiB
 *   C1.2 row   text behind a closing quote               C3.2 file  cannot be read
 *   C1.3 row   a NUL byte                                L1   row   not a JSON object
 *   C1.4 row   fields: more or fewer than the header     L2   row   a key twice
 *   C1.5 file  a column that is needed is missing        L3   row   a value of another kind
 *   C1.6 file  a column that is used occurs twice        L4   row   a key that is needed is
 *   C1.7 file  over 65,536 columns                                  missing
 *   J1-J6 row  the line is not valid JSON
 *
 * CSV is RFC 4180 with LF or CRLF; a quote inside an unquoted field and a lone CR are text.
 * Blank lines are skipped, a byte order mark at the beginning is accepted once. */

#ifndef ROWS_H
#define ROWS_H

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* no program needs all of it */
#endif

#ifndef READ_BLOCK /* the tests read byte by byte */
#define READ_BLOCK 65536
#endif
enum { READ_MAX_ROW = 67108864, READ_MAX_COLUMNS = 65536, MAX_LABEL = 1024 };
typedef enum read_format { FORMAT_AUTO, FORMAT_CSV, FORMAT_JSONL, FORMAT_LINES } read_format;
typedef enum read_field { FIELD_TEXT, FIELD_PAIR, FIELD_LABEL, FIELD_ID, FIELDS } read_field;
typedef enum read_result { READ_ROW, READ_BAD, READ_END, READ_FAILED } read_result;
enum { NEED_TEXT = 1, NEED_LABEL = 2, NO_ID = 4 }; /* an id is taken where there is one */
enum { ABSENT, STRING, NUMBER }; /* kinds of a field */

typedef struct read_fault { /* why a row or the file cannot be used; rule "" when it can */
    char        rule[12];
    uint64_t    line, place; /* line from 1, byte offset from 0 */
    const char *sentence;    /* fixed: never out of the file */
    int         fatal, code; /* code: how the program ends */
} read_fault;

typedef struct reader {
    const char *path;
    int         fd; /* -1: all bytes stand in `in` */
    read_format format;
    const char *names[FIELDS][2]; /* columns wanted, the first one first; NULL: not wanted */
    int         needed[FIELDS];
    bytes       in;
    size_t      at;
    uint64_t    base, line; /* offset of in.p[0]; line of the next byte */
    int         end, in_header;
    int32_t     columns, column[FIELDS]; /* of a CSV */
    bytes       field[FIELDS], row, key; /* row: a JSONL or plain line as it stands */
    int         kind[FIELDS], rank[FIELDS];
    unsigned    seen; /* bit 2 * field + rank: keys of the JSON object so far */
    uint64_t    rows, row_line, row_place, row_bytes;
    int         quoted;
    size_t      kept; /* bytes of a CSV row beside separators */
    read_fault  fault;
} reader;

/* Notes the first thing wrong with a row; of a header it ends the reading. */
static void row_fault(reader *r, const char *rule, uint64_t place, const char *sentence) {
    if (r->fault.rule[0] != 0) return;
    snprintf(r->fault.rule, sizeof r->fault.rule, "%s", rule);
    r->fault.line = r->row_line;
    r->fault.place = place;
    r->fault.sentence = sentence;
    r->fault.fatal = r->in_header;
    r->fault.code = END_DATA;
}

/* Notes what ends the reading; it wins over a row's fault. */
static void file_fault(reader *r, const char *rule, uint64_t place, const char *sentence) {
    if (r->fault.fatal) return;
    r->fault.rule[0] = 0;
    row_fault(r, rule, place, sentence);
    r->fault.fatal = 1;
}

static void memory_fault(reader *r) {
    file_fault(r, "memory", r->row_place, "out of memory");
    r->fault.code = END_RUN;
    r->end = 1;
}

static uint64_t reader_place(const reader *r) {
    return r->base + r->at;
}

/* More bytes behind those that are there: 1, or 0 at the end and on failure. */
static int reader_more(reader *r) {
    ssize_t n = 0;
    heed_signal(); /* a row may have no end */
    if (r->fd < 0 || r->end) return 0;
    if (!bytes_reserve(&r->in, READ_BLOCK)) {
        memory_fault(r);
        return 0;
    }
    do {
        if (n < 0 && errno == EAGAIN) wait_for(r->fd, POLLIN);
        n = read(r->fd, r->in.p + r->in.n, READ_BLOCK);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN) && stop_signal == 0);
    if (n < 0) file_fault(r, "C3.2", reader_place(r), "cannot be read");
    if (n <= 0) r->end = 1;
    else r->in.n += (size_t)n;
    return n > 0;
}

static int reader_fill(reader *r) {
    if (r->at < r->in.n) return 1;
    if (r->fd < 0) return 0;
    r->base += r->in.n;
    r->at = r->in.n = 0;
    return reader_more(r);
}

static int reader_peek(reader *r) {
    return reader_fill(r) ? (unsigned char)r->in.p[r->at] : -1;
}

/* Counts bytes of the row against the limit. */
static void reader_count(reader *r, size_t n) {
    r->row_bytes += n;
    if (r->row_bytes > READ_MAX_ROW) row_fault(r, "C3.1", r->row_place, "the row is over 64 MiB");
}

static int reader_get(reader *r) {
    if (!reader_fill(r)) return -1;
    int c = (unsigned char)r->in.p[r->at++];
    if (c == '\n') r->line++;
    reader_count(r, 1);
    return c;
}

/* A byte of a field; to NULL: of a column that nobody wants. */
static void csv_keep(reader *r, bytes *to, int c) {
    char byte = (char)c;
    if (c == 0) row_fault(r, "C1.3", reader_place(r) - 1, "a NUL byte");
    r->kept++;
    if (to == NULL || r->fault.rule[0] != 0) return;
    if (!bytes_add(to, &byte, 1)) memory_fault(r);
}

/* The inside of quotes; returns the byte behind the closing quote, -1 at the end. */
static int csv_quoted(reader *r, bytes *to) {
    uint64_t opened = reader_place(r) - 1;
    int      c;
    r->quoted = 1;
    while ((c = reader_get(r)) >= 0 && !r->fault.fatal) {
        if (c == '"' && reader_peek(r) != '"') break;
        if (c == '"') reader_get(r);
        csv_keep(r, to, c);
    }
    if (c < 0 || r->fault.fatal) {
        file_fault(r, "C1.1", opened, "a quote is open at the end of the file");
        return -1;
    }
    c = reader_get(r);
    if (c >= 0 && c != ',' && c != '\n' && !(c == '\r' && reader_peek(r) == '\n'))
        row_fault(r, "C1.2", reader_place(r) - 1, "text behind a closing quote");
    return c;
}

/* One field; returns what ended it: ',', '\n', or -1 for the end of the file. */
static int csv_field(reader *r, bytes *to) {
    int c = reader_get(r);
    if (c == '"') c = csv_quoted(r, to);
    for (; c >= 0 && c != ',' && c != '\n' && !r->fault.fatal; c = reader_get(r))
        if (c != '\r' || reader_peek(r) != '\n') csv_keep(r, to, c);
    return c;
}

static void row_begin(reader *r) {
    for (int f = 0; f < FIELDS; f++) {
        r->field[f].n = 0;
        r->kind[f] = ABSENT;
    }
    memset(&r->fault, 0, sizeof r->fault);
    r->row.n = r->kept = 0;
    r->quoted = 0;
    r->seen = 0;
    r->row_bytes = 0;
    r->row_line = r->line;
    r->row_place = reader_place(r);
}

static bytes *csv_slot(reader *r, int32_t column) {
    for (int f = 0; f < FIELDS; f++) {
        if (r->column[f] != column) continue;
        r->kind[f] = STRING;
        return &r->field[f];
    }
    return NULL;
}

/* Is the row just read an empty line? Then nobody counts it. */
static int csv_blank(const reader *r, int32_t columns) {
    return columns == 1 && r->kept == 0 && !r->quoted;
}

static read_result csv_row(reader *r) {
    int32_t columns;
    do {
        int c = ',';
        row_begin(r);
        if (reader_peek(r) < 0) return r->fault.fatal ? READ_FAILED : READ_END;
        for (columns = 0; c == ','; columns += columns <= READ_MAX_COLUMNS)
            c = csv_field(r, csv_slot(r, columns));
    } while (csv_blank(r, columns));
    if (columns != r->columns)
        row_fault(r, "C1.4", r->row_place, "more or fewer fields than the header");
    return r->fault.fatal ? READ_FAILED : r->fault.rule[0] ? READ_BAD : READ_ROW;
}

/* Which field and which of its two names a column or key has: 2 * field + rank, or -1. */
static int reader_wants(const reader *r, const char *name, size_t n) {
    for (int f = 0; f < FIELDS; f++)
        for (int k = 0; k < 2; k++)
            if (r->names[f][k] != NULL && strlen(r->names[f][k]) == n &&
                memcmp(r->names[f][k], name, n) == 0) return 2 * f + k;
    return -1;
}

/* Reads the header: which column holds which field. 0 when the file cannot be used. */
static int csv_header(reader *r) {
    bytes   name = {NULL, 0, 0};
    int32_t found[2 * FIELDS], times[2 * FIELDS];
    memset(times, 0, sizeof times);
    r->in_header = 1;
    do {
        row_begin(r);
        r->columns = 0;
        if (reader_peek(r) < 0) break; /* an empty file has no rows */
        for (int c = ','; c == ',' && !r->fault.fatal; r->columns++) {
            name.n = 0;
            c = csv_field(r, &name);
            int what = reader_wants(r, name.p, name.n);
            if (what >= 0 && times[what]++ == 0) found[what] = r->columns;
            if (r->columns == READ_MAX_COLUMNS)
                file_fault(r, "C1.7", r->row_place, "over 65,536 columns");
        }
    } while (csv_blank(r, r->columns));
    bytes_free(&name);
    r->in_header = 0;
    if (r->columns == 0) return !r->fault.fatal;
    for (int f = 0; f < FIELDS; f++) {
        int what = times[2 * f] > 0 ? 2 * f : 2 * f + 1;
        if (times[what] > 0) r->column[f] = found[what];
        if (times[what] > 1)
            file_fault(r, "C1.6", r->row_place, "a column that is used occurs twice");
        if (times[what] == 0 && r->needed[f])
            file_fault(r, "C1.5", r->row_place, f == FIELD_LABEL
                       ? "the header lacks the label's column (see --label-column)"
                       : f == FIELD_PAIR
                       ? "the header lacks the second segment's column (see --pair-column)"
                       : "the header lacks the text's column (see --text-column, --lines)");
    }
    return !r->fault.fatal;
}

/* The next line into r->row, without its end: 0 at the end of the file. */
static int read_line(reader *r) {
    int ended = 0;
    row_begin(r);
    if (!reader_fill(r)) return 0;
    while (!ended && reader_fill(r)) {
        const char *from = r->in.p + r->at;
        const char *feed = (const char *)memchr(from, '\n', r->in.n - r->at);
        size_t      n = feed != NULL ? (size_t)(feed - from) : r->in.n - r->at;
        ended = feed != NULL;
        reader_count(r, n);
        if (r->fault.rule[0] == 0 && !bytes_add(&r->row, from, n)) memory_fault(r);
        r->at += n + (size_t)ended;
        r->line += (uint64_t)ended;
    }
    if (ended && r->row.n > 0 && r->row.p[r->row.n - 1] == '\r') r->row.n--;
    return 1;
}

static read_result line_row(reader *r) {
    do {
        if (!read_line(r)) return r->fault.fatal ? READ_FAILED : READ_END;
    } while (r->row.n == 0 && r->fault.rule[0] == 0);
    const char *zero = r->row.n > 0 ? (const char *)memchr(r->row.p, 0, r->row.n) : NULL;
    if (zero != NULL)
        row_fault(r, "C1.3", r->row_place + (uint64_t)(zero - r->row.p), "a NUL byte");
    if (r->fault.rule[0] == 0 && !bytes_add(&r->field[FIELD_TEXT], r->row.p, r->row.n))
        memory_fault(r);
    r->kind[FIELD_TEXT] = STRING;
    return r->fault.fatal ? READ_FAILED : r->fault.rule[0] ? READ_BAD : READ_ROW;
}

/* Notes what the JSON parser refused; its sentence may hold a name out of the line. */
static void json_fault(reader *r, const dp_error *err) {
    row_fault(r, err->rule[0] != 0 ? err->rule : "J",
              r->row_place + (err->place == DP_NO_PLACE ? 0 : err->place),
              "the line is not valid JSON, or beyond a limit");
}

/* A step of the JSON parser: 0 when the line is not valid JSON. */
static int json_step(reader *r, dp_json *json) {
    dp_error err;
    if (dp_json_next(json, &err) == DP_OK) return 1;
    json_fault(r, &err);
    return 0;
}

/* Stores the present value as field f, whose key was its name number rank. */
static void json_value(reader *r, const dp_json *json, int f, int rank) {
    dp_error err;
    uint64_t place = r->row_place + json->token;
    int      number = json->kind == DP_JSON_NUMBER && (f == FIELD_LABEL || f == FIELD_ID);
    unsigned bit = 1u << (2 * f + rank);
    if (r->seen & bit) row_fault(r, "L2", place, "a key occurs twice");
    r->seen |= bit;
    if (json->kind == DP_JSON_NULL && f != FIELD_TEXT) return; /* as if it were not there */
    if (json->kind != DP_JSON_STRING && !number)
        row_fault(r, "L3", place, "a value of a kind that does not fit its key");
    if (r->fault.rule[0] != 0 || (r->kind[f] != ABSENT && r->rank[f] < rank)) return;
    r->kind[f] = number ? NUMBER : STRING;
    r->rank[f] = rank;
    r->field[f].n = 0;
    if (!bytes_reserve(&r->field[f], json->length + 1)) memory_fault(r);
    else if (number) bytes_add(&r->field[f], json->text + json->token, json->length);
    else if (dp_json_string(json, r->field[f].p, r->field[f].cap, &r->field[f].n, &err) != DP_OK)
        json_fault(r, &err);
}

/* Whose key this is: 2 * field + rank, -1: nobody's. */
static int json_key(reader *r, const dp_json *json) {
    dp_error err;
    r->key.n = 0;
    if (!bytes_reserve(&r->key, json->length + 1)) memory_fault(r);
    else if (dp_json_string(json, r->key.p, r->key.cap, &r->key.n, &err) == DP_OK)
        return reader_wants(r, r->key.p, r->key.n);
    return -1;
}

/* The members of the object that makes the line. */
static void json_members(reader *r, dp_json *json) {
    dp_error err;
    while (json_step(r, json) && json->kind == DP_JSON_KEY) {
        int what = json_key(r, json);
        if (r->fault.rule[0] != 0 || !json_step(r, json)) return;
        if (what >= 0) json_value(r, json, what / 2, what % 2);
        if (dp_json_skip(json, &err) != DP_OK) json_fault(r, &err);
        if (r->fault.rule[0] != 0) return;
    }
}

/* Is the line empty but for blanks? */
static int line_is_blank(const bytes *line) {
    for (size_t i = 0; i < line->n; i++)
        if (line->p[i] != ' ' && line->p[i] != '\t' && line->p[i] != '\r') return 0;
    return 1;
}

static read_result json_row(reader *r) {
    dp_json json;
    do {
        if (!read_line(r)) return r->fault.fatal ? READ_FAILED : READ_END;
    } while (line_is_blank(&r->row) && r->fault.rule[0] == 0);
    dp_json_begin(&json, r->row.p, r->row.n);
    if (r->fault.rule[0] == 0 && json_step(r, &json)) {
        if (json.kind == DP_JSON_OBJECT) json_members(r, &json);
        else row_fault(r, "L1", r->row_place + json.token, "the line is not a JSON object");
    }
    if (r->fault.rule[0] == 0) json_step(r, &json); /* nothing may follow */
    for (int f = 0; f < FIELDS; f++)
        if (r->needed[f] && r->kind[f] == ABSENT)
            row_fault(r, "L4", r->row_place, "a key that is needed is missing");
    return r->fault.fatal ? READ_FAILED : r->fault.rule[0] ? READ_BAD : READ_ROW;
}

static read_result read_row(reader *r) {
    read_result result = r->format == FORMAT_CSV   ? csv_row(r)
                       : r->format == FORMAT_JSONL ? json_row(r) : line_row(r);
    r->rows += result == READ_ROW || result == READ_BAD;
    return result;
}

static read_format format_of(const char *path, int first_byte) {
    static const struct { const char *end; read_format format; } known[] = {
        {".csv", FORMAT_CSV}, {".jsonl", FORMAT_JSONL}, {".ndjson", FORMAT_JSONL},
        {".txt", FORMAT_LINES},
    };
    for (int i = 0; i < COUNT(known); i++) {
        size_t n = strlen(path), end = strlen(known[i].end);
        if (n > end && strcasecmp(path + n - end, known[i].end) == 0) return known[i].format;
    }
    return first_byte == '{' ? FORMAT_JSONL : FORMAT_CSV;
}

/* The columns that are wanted: by option, else the usual ones that no option gives to another
 * field. */
static void reader_names(reader *r, int need) {
    static const char *const usual[FIELDS][2] = {
        {"symptoms", "text"}, {NULL, NULL}, {"prognosis", "label"}, {"id", NULL}};
    const char *given[FIELDS] = {self.text_column, self.pair_column, self.label_column, NULL};
    for (int f = 0; f < FIELD_ID; f++)
        if (!r->needed[f]) given[f] = NULL;
    for (int at = 0; at < 2 * FIELDS; at++) {
        int         f = at / 2, wanted = f == FIELD_ID ? !(need & NO_ID) : r->needed[f];
        const char *name = given[f] == NULL ? usual[f][at % 2] : at % 2 == 0 ? given[f] : NULL;
        for (int g = 0; g < FIELDS && name != NULL; g++)
            wanted &= g == f || given[g] == NULL || strcmp(given[g], name) != 0;
        r->names[f][at % 2] = wanted ? name : NULL;
    }
}

/* A reader whose fd or bytes are set finds its format and, in a CSV, its columns: 0 when the
 * file cannot be used (r->fault says why). */
static int reader_start(reader *r, int need) {
    r->needed[FIELD_TEXT] = (need & NEED_TEXT) != 0;
    r->needed[FIELD_PAIR] = (need & NEED_TEXT) != 0 && self.pair_column != NULL;
    r->needed[FIELD_LABEL] = (need & NEED_LABEL) != 0;
    reader_names(r, need);
    for (int f = 0; f < FIELDS; f++) r->column[f] = -1;
    r->line = r->row_line = 1;
    while (r->in.n < 3 && reader_more(r)) {}
    if (r->in.n >= 3 && memcmp(r->in.p, "\xEF\xBB\xBF", 3) == 0) r->at = 3;
    r->format = self.lines ? FORMAT_LINES : (read_format)self.input_format;
    if (r->format == FORMAT_AUTO) r->format = format_of(r->path, reader_peek(r));
    if (r->format == FORMAT_LINES && (r->needed[FIELD_LABEL] || r->needed[FIELD_PAIR]))
        file_fault(r, "C1.5", 0, "plain lines hold texts only: no labels, no second segments");
    if (r->fault.fatal) return 0;
    return r->format != FORMAT_CSV || csv_header(r);
}

static void reader_close(reader *r) {
    for (int f = 0; f < FIELDS; f++) bytes_free(&r->field[f]);
    bytes_free(&r->row);
    bytes_free(&r->key);
    bytes_free(&r->in);
    if (r->fd > 0) close(r->fd);
    r->fd = -1;
}

/* Would the next row have to be waited for (a person typing, a slow pipe)? */
static int reader_waits(const reader *r) {
    struct pollfd ready = {r->fd, POLLIN, 0};
    return r->at == r->in.n && r->fd >= 0 && !r->end && poll(&ready, 1, 0) == 0;
}

static void report_row(const reader *r) {
    self.failed_rows++;
    say(WARNING, "%s: line %" PRIu64 ": byte %" PRIu64 ": rule %s: %s; the row is left out",
        r->path, r->fault.line, r->fault.place, r->fault.rule, r->fault.sentence);
}

NO_RETURN static void report_file(const reader *r) {
    heed_signal();
    stop(r->fault.code, "%s: line %" PRIu64 ": byte %" PRIu64 ": rule %s: %s", r->path,
         r->fault.line, r->fault.place, r->fault.rule, r->fault.sentence);
}

static reader reader_open(const char *path, int need) {
    reader      r;
    struct stat about;
    memset(&r, 0, sizeof r);
    r.path = strcmp(path, "-") == 0 ? "stdin" : path;
    r.fd = strcmp(path, "-") == 0 ? 0 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (r.fd < 0 && errno == EINTR) heed_signal();
    if (r.fd < 0) stop(END_DATA, "%s: cannot be read: %s", path, strerror(errno));
    if (fstat(r.fd, &about) == 0 && S_ISDIR(about.st_mode))
        stop(END_DATA, "%s: cannot be read: is a directory", path);
    if (!reader_start(&r, need)) report_file(&r);
    return r;
}

/* ---- data sets --------------------------------------------------------------------------- */

typedef struct label_entry { /* a map of stb_ds; its order is that of first appearance */
    char   *key;
    int32_t value;
} label_entry;

typedef struct data_set {
    const char *path;
    char        sha256[65]; /* of the file */
    dp_text    *texts;      /* arrays of stb_ds, one element a row */
    int32_t    *labels;     /* place in the map of names; after resolve_labels: class */
    uint64_t   *lines;
} data_set;

/* The class of a label: its name in the model's map, or its number; -1 for neither. */
static int32_t class_of(const dp_model *model, const char *label, size_t n) {
    dp_model_info info;
    int32_t       cls = dp_model_find_label(model, label, n), number = 0;
    if (cls >= 0) return cls;
    dp_model_get_info(model, &info);
    if (n == 0 || n > 5 || (n > 1 && label[0] == '0')) return -1;
    for (size_t i = 0; i < n; i++) {
        if (label[i] < '0' || label[i] > '9') return -1;
        number = number * 10 + (label[i] - '0');
    }
    if (number >= info.classes) return -1;
    const char *name = dp_model_label(model, number);
    int         is_name = strpbrk(name, "0123456789") != NULL &&
                          strspn(name, "0123456789+-.eE") == strlen(name);
    return is_name ? -1 : number; /* numbers are names there */
}

/* The label's place in the map, which grows; -1 when it cannot be a name (rule V4). */
static int32_t label_index(label_entry **names, const bytes *label) {
    bytes    key = {NULL, 0, 0};
    int32_t  index = -1;
    uint32_t code;
    if (label->n == 0 || label->n > MAX_LABEL) return -1;
    for (size_t i = 0, n; i < label->n; i += n) {
        n = utf8_next(label->p + i, label->n - i, &code);
        int bad = code == 0xFFFD && (n != 3 || label->p[i] != '\xEF'); /* no U+FFFD of the file */
        if (bad || code < 0x20 || code == 0x7F) return -1;
    }
    if (!bytes_add(&key, label->p, label->n) || !bytes_add(&key, "", 1))
        stop(END_RUN, "out of memory");
    if (*names == NULL) sh_new_strdup(*names);
    if (shgeti(*names, key.p) < 0) shput(*names, key.p, (int32_t)shlen(*names));
    index = (int32_t)shgeti(*names, key.p);
    bytes_free(&key);
    return index;
}

typedef struct row_id { /* what the input calls the row, else its number from 0 */
    const char *p;
    size_t      n;
    int         number; /* 1: a JSON number as it stands */
} row_id;

/* 0, or digits that do not begin with 0: what a CSV may mean as a number. */
static int is_number(const bytes *b) {
    if (b->n == 0 || b->n > 18 || (b->n > 1 && b->p[0] == '0')) return 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->p[i] < '0' || b->p[i] > '9') return 0;
    return 1;
}

static row_id id_of_row(const reader *r) {
    const bytes *given = &r->field[FIELD_ID];
    char         text[32];
    row_id       id = {NULL, given->n, r->kind[FIELD_ID] != STRING};
    if (r->kind[FIELD_ID] == ABSENT)
        id.n = (size_t)snprintf(text, sizeof text, "%" PRIu64, r->rows - 1);
    id.p = keep_document(r->kind[FIELD_ID] == ABSENT ? text : given->p, id.n);
    if (r->format == FORMAT_CSV && is_number(given)) id.number = 1;
    return id;
}

static dp_text text_of_row(const reader *r) {
    dp_text text = {NULL, r->field[FIELD_TEXT].n, NULL, r->field[FIELD_PAIR].n};
    text.a = keep_document(r->field[FIELD_TEXT].p, text.a_bytes);
    if (r->kind[FIELD_PAIR] != ABSENT)
        text.b = keep_document(r->field[FIELD_PAIR].p, text.b_bytes);
    return text;
}

/* All rows of a file with their labels; stops with 4 when there is none. */
static data_set load_data(const char *path, label_entry **names) {
    data_set data;
    reader   r;
    memset(&data, 0, sizeof data);
    memset(&r, 0, sizeof r);
    data.path = r.path = path;
    r.fd = -1;
    r.in = read_file(path, SIZE_MAX / 8, END_DATA);
    dp_sha256(r.in.p, r.in.n, data.sha256);
    if (!reader_start(&r, NEED_TEXT | NEED_LABEL | NO_ID)) report_file(&r);
    for (read_result got; (got = read_row(&r)) != READ_END;) {
        heed_signal();
        if (got == READ_FAILED) report_file(&r);
        int32_t label = got == READ_ROW ? label_index(names, &r.field[FIELD_LABEL]) : -1;
        if (got == READ_ROW && label < 0)
            row_fault(&r, "V4", r.row_place,
                      "the label is empty, too long, no UTF-8 or has control characters");
        if (label < 0) {
            report_row(&r);
            continue;
        }
        dp_text text = text_of_row(&r);
        arrput(data.texts, text);
        arrput(data.labels, label);
        arrput(data.lines, r.row_line);
    }
    reader_close(&r);
    if (arrlen(data.texts) == 0) stop(END_DATA, "%s: no rows", path);
    return data;
}

/* The classes in the order of a file with a label column, for instance data/labels.csv. */
static void load_labels(const char *path, label_entry **names) {
    reader r = reader_open(path, NEED_LABEL);
    for (read_result got; (got = read_row(&r)) != READ_END;) {
        char number[24];
        int  n = snprintf(number, sizeof number, "%" PRIu64, r.rows - 1);
        if (is_number(&r.field[FIELD_ID]) && (r.field[FIELD_ID].n != (size_t)n ||
                                              memcmp(r.field[FIELD_ID].p, number, (size_t)n) != 0))
            row_fault(&r, "V4", r.row_place, "the id is not the number of the row, from 0");
        if (r.fault.rule[0] == 0 && got == READ_ROW &&
            label_index(names, &r.field[FIELD_LABEL]) == shlen(*names) - 1 &&
            (uint64_t)shlen(*names) == r.rows) continue;
        if (got == READ_ROW) row_fault(&r, "V4", r.row_place, "an empty or repeated label");
        r.fault.code = END_DATA;
        report_file(&r);
    }
    if (r.rows == 0) stop(END_DATA, "%s: no rows", path);
    reader_close(&r);
}

/* Turns places in the map of names into classes of the model. A label that the model lacks
 * stops the program with CODE; CODE 0: the row is left out. */
static void resolve_labels(data_set *data, const label_entry *names, const dp_model *model,
                           int code) {
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < arrlen(data->texts); i++) {
        const char *name = names[data->labels[i]].key;
        int32_t     cls = class_of(model, name, strlen(name));
        if (cls < 0 && code != 0)
            stop(code, "%s: line %" PRIu64 ": a label that the model or the training data lacks",
                 data->path, data->lines[i]);
        if (cls < 0) {
            self.failed_rows++;
            say(WARNING, "%s: line %" PRIu64 ": a label that the model lacks; the row is left out",
                data->path, data->lines[i]);
            continue;
        }
        data->texts[kept] = data->texts[i];
        data->lines[kept] = data->lines[i];
        data->labels[kept++] = cls;
    }
    arrsetlen(data->texts, kept);
    if (kept == 0) stop(END_DATA, "%s: no rows with a known label", data->path);
}

/* A single class, or one of the validation rows that no training row has, cannot be learned: it
 * stops the program. Classes of the model's own that neither has stay in it; that is said. */
static void compare_classes(const data_set *train, const data_set *valid, const dp_model *model) {
    dp_model_info info;
    int32_t       found = 0;
    char         *seen = NULL;
    DP_CLEAR(info);
    dp_model_get_info(model, &info);
    arrsetlen(seen, info.classes);
    memset(seen, 0, (size_t)info.classes);
    for (ptrdiff_t i = 0; i < arrlen(train->texts); i++) seen[train->labels[i]] = 1;
    for (int32_t k = 0; k < info.classes; k++) found += seen[k];
    if (found < 2) stop(END_DATA, "%s: a single class", train->path);
    for (ptrdiff_t i = 0; i < arrlen(valid->texts); i++)
        if (!seen[valid->labels[i]])
            stop(END_DATA, "%s: line %" PRIu64 ": a label that the model or the training data "
                 "lacks", valid->path, valid->lines[i]);
    if (found < info.classes)
        say(INFO, "%d of the model's %d classes have no training row", (int)(info.classes - found),
            (int)info.classes);
    arrfree(seen);
}

/* ,"NAME":{"file":...}: where rows came from. */
static void put_data(sink *out, const char *name, const data_set *data) {
    if (data->path == NULL) return;
    putf(out, ",\"%s\":{\"file\":", name);
    put_json(out, data->path, strlen(data->path));
    putf(out, ",\"sha256\":\"%s\",\"rows\":%td}", data->sha256, arrlen(data->texts));
}

/* The library's view of a data set. */
static dp_dataset view_of(const data_set *data) {
    dp_dataset view;
    DP_CLEAR(view);
    view.rows = (size_t)arrlen(data->texts);
    view.texts = data->texts;
    view.labels = data->labels;
    return view;
}

/* The exit code of a run that came to its end: 6 when rows failed. */
NO_RETURN static void finish_rows(uint64_t rows) {
    if (self.failed_rows == 0) finish(END_OK);
    say(WARNING, "%" PRIu64 " of %" PRIu64 " rows failed (they are listed above)",
        self.failed_rows, rows);
    finish(END_ROWS);
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif /* ROWS_H */
