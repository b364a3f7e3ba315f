/* reference_json.h -- a second, independent JSON reader for the tests: recursive, builds a tree,
 * keeps everything. What the library accepts must be what this one reads. Tests only. */
#ifndef DP_REFERENCE_JSON_H
#define DP_REFERENCE_JSON_H

typedef struct ref {
    char        kind; /* { [ s n t f 0 */
    char       *text; /* strings decoded, numbers as written */
    size_t      bytes;
    char       *key; /* of a member */
    size_t      key_bytes;
    struct ref *child, *next;
} ref;

typedef struct ref_in {
    const unsigned char *p;
    size_t n, at;
    int    depth, duplicates;
} ref_in;

static void ref_free(ref *r) {
    while (r != NULL) {
        ref *next = r->next;
        ref_free(r->child);
        free(r->text);
        free(r->key);
        free(r);
        r = next;
    }
}

static void ref_blank(ref_in *in) {
    while (in->at < in->n && strchr(" \t\r\n", in->p[in->at]) && in->p[in->at]) in->at++;
}

static int ref_hex4(ref_in *in, unsigned *to) {
    if (in->n - in->at < 4) return 0;
    *to = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char c = in->p[in->at++];
        const char *all = "0123456789abcdef0123456789ABCDEF", *found = c ? strchr(all, c) : NULL;
        if (found == NULL) return 0;
        *to = *to * 16 + (unsigned)(found - all) % 16;
    }
    return 1;
}

static size_t ref_put(char *to, unsigned long c) {
    if (c < 0x80) return to[0] = (char)c, 1;
    if (c < 0x800) return to[0] = (char)(0xC0 + c / 64), to[1] = (char)(0x80 + c % 64), 2;
    if (c < 0x10000)
        return to[0] = (char)(0xE0 + c / 4096), to[1] = (char)(0x80 + c / 64 % 64),
               to[2] = (char)(0x80 + c % 64), 3;
    return to[0] = (char)(0xF0 + c / 262144), to[1] = (char)(0x80 + c / 4096 % 64),
           to[2] = (char)(0x80 + c / 64 % 64), to[3] = (char)(0x80 + c % 64), 4;
}

/* A multi-byte character by its value: decode, then ask whether the value needs these bytes. */
static int ref_utf8(ref_in *in, char *to, size_t *bytes) {
    unsigned char c = in->p[in->at];
    size_t        n = c >= 0xF8 || c < 0xC0 ? 0 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    unsigned long v = n == 4 ? c & 7u : n == 3 ? c & 15u : c & 31u;
    char          again[4];
    if (n == 0 || in->n - in->at < n) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((in->p[in->at + i] & 0xC0) != 0x80) return 0;
        v = v * 64 + (in->p[in->at + i] & 63u);
    }
    if (v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF) || ref_put(again, v) != n) return 0;
    memcpy(to, again, n);
    *bytes = n;
    in->at += n;
    return 1;
}

static int ref_string(ref_in *in, char **text, size_t *bytes, int name) {
    char  *to = (char *)malloc(in->n - in->at + 8);
    size_t n = 0, more = 0;
    in->at++;
    while (in->at < in->n && in->p[in->at] != '"') {
        unsigned char c = in->p[in->at];
        unsigned      a = 0, b = 0;
        if (c < 32) break;
        if (c >= 0x80) {
            if (!ref_utf8(in, to + n, &more)) break;
            n += more;
            continue;
        }
        in->at++;
        if (c != '\\') { to[n++] = (char)c; continue; }
        if (in->at >= in->n) break;
        c = in->p[in->at++];
        if (c != 'u') {
            static const char from[] = "\"\\/bfnrt", as[] = "\"\\/\b\f\n\r\t";
            const char *f = c ? strchr(from, c) : NULL;
            if (f == NULL) { in->at = in->n; break; }
            to[n++] = as[f - from];
            continue;
        }
        if (!ref_hex4(in, &a)) { in->at = in->n; break; }
        unsigned long v = a;
        if (a >= 0xD800 && a < 0xDC00 && in->n - in->at >= 6 && in->p[in->at] == '\\' &&
            in->p[in->at + 1] == 'u') {
            size_t back = in->at;
            in->at += 2;
            if (!ref_hex4(in, &b)) { in->at = in->n; break; }
            if (b >= 0xDC00 && b < 0xE000) v = 0x10000 + (a - 0xD800) * 1024ul + (b - 0xDC00);
            else in->at = back;
        }
        if (v >= 0xD800 && v < 0xE000) {
            if (name) { in->at = in->n; break; }
            v = 0xFFFD;
        }
        if (v == 0 && name) { in->at = in->n; break; }
        n += ref_put(to + n, v);
    }
    if (in->at >= in->n || in->p[in->at] != '"') {
        free(to);
        return 0;
    }
    in->at++;
    to[n] = 0;
    *text = to;
    *bytes = n;
    return 1;
}

static int ref_number(ref_in *in) {
    size_t start = in->at;
#define REF_DIGITS() while (in->at < in->n && in->p[in->at] >= '0' && in->p[in->at] <= '9') in->at++
    if (in->p[in->at] == '-') in->at++;
    size_t first = in->at;
    REF_DIGITS();
    if (in->at == first || (in->p[first] == '0' && in->at > first + 1)) return 0;
    if (in->at < in->n && in->p[in->at] == '.') {
        first = ++in->at;
        REF_DIGITS();
        if (in->at == first) return 0;
    }
    if (in->at < in->n && (in->p[in->at] == 'e' || in->p[in->at] == 'E')) {
        in->at++;
        if (in->at < in->n && (in->p[in->at] == '+' || in->p[in->at] == '-')) in->at++;
        first = in->at;
        REF_DIGITS();
        if (in->at == first) return 0;
    }
    return in->at - start <= 64;
#undef REF_DIGITS
}

static ref *ref_value(ref_in *in);

static int ref_members(ref_in *in, ref *r, char end) {
    ref **last = &r->child;
    in->at++;
    ref_blank(in);
    if (in->at < in->n && in->p[in->at] == (unsigned char)end) return in->at++, 1;
    for (;;) {
        char  *key = NULL;
        size_t key_bytes = 0;
        ref_blank(in);
        if (end == '}') {
            if (in->at >= in->n || in->p[in->at] != '"' || !ref_string(in, &key, &key_bytes, 1))
                return 0;
            for (ref *o = r->child; o != NULL; o = o->next)
                in->duplicates += o->key_bytes == key_bytes && !memcmp(o->key, key, key_bytes);
            ref_blank(in);
            if (in->at >= in->n || in->p[in->at] != ':') { free(key); return 0; }
            in->at++;
        }
        ref *v = ref_value(in);
        if (v == NULL) { free(key); return 0; }
        v->key = key;
        v->key_bytes = key_bytes;
        *last = v;
        last = &v->next;
        ref_blank(in);
        if (in->at < in->n && in->p[in->at] == (unsigned char)end) return in->at++, 1;
        if (in->at >= in->n || in->p[in->at] != ',') return 0;
        in->at++;
    }
}

static ref *ref_value(ref_in *in) {
    ref_blank(in);
    if (in->at >= in->n) return NULL;
    ref   *r = (ref *)calloc(1, sizeof *r);
    size_t start = in->at;
    int    c = in->p[in->at], ok = 0;
    r->kind = (char)c;
    if (c == '{' || c == '[') {
        ok = ++in->depth <= 64 && ref_members(in, r, c == '{' ? '}' : ']');
        in->depth--;
    } else if (c == '"') {
        r->kind = 's';
        ok = ref_string(in, &r->text, &r->bytes, 0);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        r->kind = 'n';
        ok = ref_number(in);
        r->bytes = in->at - start;
        r->text = (char *)calloc(1, r->bytes + 1);
        memcpy(r->text, in->p + start, r->bytes);
    } else {
        static const char *const words[] = {"true", "false", "null"};
        for (int i = 0; i < 3; i++) {
            size_t n = strlen(words[i]);
            if (in->n - in->at < n || memcmp(in->p + in->at, words[i], n) != 0) continue;
            r->kind = "tf0"[i];
            in->at += n;
            ok = 1;
            break;
        }
    }
    if (ok) return r;
    ref_free(r);
    return NULL;
}

/* The tree of a document, or NULL; a name that stands twice is an error as well. */
static ref *ref_parse(const void *text, size_t bytes) {
    ref_in in = {(const unsigned char *)text, bytes, 0, 0, 0};
    ref   *r = ref_value(&in);
    ref_blank(&in);
    if (r != NULL && in.at == in.n && in.duplicates == 0) return r;
    ref_free(r);
    return NULL;
}

static const ref *ref_get(const ref *object, const char *key) {
    const ref *r = object->kind == '{' ? object->child : NULL;
    while (r != NULL && (r->key_bytes != strlen(key) || memcmp(r->key, key, r->key_bytes)))
        r = r->next;
    return r;
}

static size_t ref_count(const ref *r) {
    size_t n = 0;
    for (r = r->child; r != NULL; r = r->next) n++;
    return n;
}

#endif
