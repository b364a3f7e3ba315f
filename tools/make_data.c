/* make_data.c -- writes the demo's texts from the facts in data/.
 *
 *     make_data --output DIR [--data data] [--seed 0] [--renderings 1] [--leave-out 0]
 *               [--validation 0]
 *
 * Every row of the symptom table (disease, symptom set, count) becomes a text in the manner of
 * Intel's kit: a phrase for each symptom present, up to three phrases that deny others, in
 * random order. Files, each with the columns symptoms,prognosis:
 *   Testing_unseen.csv  whole symptom sets, a fifth of each disease's, that occur nowhere else
 *   Testing.csv         a stratified fifth of the rows of the other sets (the kit's question)
 *   Training.csv        the rest, rendered anew --renderings times, each time with a symptom
 *                       left out with probability --leave-out
 *   Validation.csv      with --validation P: that part of the training rows, for choosing
 *                       epochs and sizes without looking at a test
 * A third of the phrase forms occurs in the two tests only. Same seed, same bytes.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SYMPTOMS = 256, MAX_SETS = 1024, MAX_LABELS = 64, MAX_IN_SET = 32, MAX_ROWS = 8192 };

typedef struct symptom_set {
    int label, count, n;
    int symptom[MAX_IN_SET];
} symptom_set;

typedef struct table {
    char        labels[MAX_LABELS][80];
    char        symptoms[MAX_SYMPTOMS][80];
    symptom_set sets[MAX_SETS];
    int         label_count, symptom_count, set_count;
} table;

typedef struct options {
    const char *data, *output;
    uint64_t    seed;
    int         renderings;
    double      leave_out, validation;
} options;

/* Forms of a phrase; %s is the symptom. The tests draw from all, training from the first part. */
static const char *const positive[] = {
    "%s",
    "The patient currently has %s.",
    "There have been signs of %s.",
    "Often troubled by %s.",
    "For the last few days there has been %s.",
    "%s comes and goes, as the patient has noticed.",
    "recurrent %s",
    "severe %s",
    "Complains of %s.",
    "Presents with %s.",
    "%s started recently.",
    "mild %s most of the time",
    /* in tests only */
    "Reports %s since last week.",
    "Came in because of %s.",
    "%s was seen on examination.",
    "The family mentions %s.",
    "marked %s",
    "%s bothers the patient most at night.",
};
static const char *const negative[] = {
    "The patient denies %s.",
    "No evidence of %s.",
    "%s is absent.",
    "no %s",
    "There is no sign of %s.",
    "without %s",
    /* in tests only */
    "%s was ruled out.",
    "Has not had %s.",
    "Negative for %s.",
};
enum { POSITIVE_ALL = 18, POSITIVE_TRAIN = 12, NEGATIVE_ALL = 9, NEGATIVE_TRAIN = 6 };

/* ---- random numbers: SplitMix64 (Steele, Lea, Flood 2014) --------------------------------- */

static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int below(uint64_t *state, int n) {
    return (int)((next(state) >> 32) * (uint64_t)n >> 32);
}

static int chance(uint64_t *state, double p) {
    return (double)(next(state) >> 11) < p * 9007199254740992.0; /* 2^53 */
}

static void shuffle(uint64_t *state, int *a, int n) {
    for (int i = n - 1; i > 0; i--) {
        int j = below(state, i + 1), t = a[i];
        a[i] = a[j];
        a[j] = t;
    }
}

/* ---- reading the facts -------------------------------------------------------------------- */

static void stop(const char *file, const char *why) {
    fprintf(stderr, "make_data: %s: %s\n", file, why);
    exit(4);
}

static FILE *open_file(const char *dir, const char *name, const char *mode, char path[512]) {
    snprintf(path, 512, "%s/%s", dir, name);
    FILE *f = fopen(path, mode);
    if (f == NULL) stop(path, strerror(errno));
    return f;
}

static int symptom_id(table *t, const char *name) {
    for (int i = 0; i < t->symptom_count; i++)
        if (strcmp(t->symptoms[i], name) == 0) return i;
    if (t->symptom_count == MAX_SYMPTOMS) stop("symptom_sets.csv", "too many symptoms");
    snprintf(t->symptoms[t->symptom_count], sizeof t->symptoms[0], "%s", name);
    return t->symptom_count++;
}

static void read_labels(table *t, const char *dir) {
    char  path[512], line[256];
    FILE *f = open_file(dir, "labels.csv", "r", path);
    if (fgets(line, sizeof line, f) == NULL) stop(path, "empty file");
    while (fgets(line, sizeof line, f) != NULL) {
        char *from = strchr(line, '"'), *to = strrchr(line, '"');
        if (t->label_count == MAX_LABELS || from == NULL || to == from) stop(path, "not a label");
        *to = 0;
        snprintf(t->labels[t->label_count++], sizeof t->labels[0], "%s", from + 1);
    }
    fclose(f);
}

static void read_sets(table *t, const char *dir) {
    char  path[512], line[4096];
    FILE *f = open_file(dir, "symptom_sets.csv", "r", path);
    if (fgets(line, sizeof line, f) == NULL) stop(path, "empty file");
    while (fgets(line, sizeof line, f) != NULL) {
        symptom_set *s = &t->sets[t->set_count];
        int          at = 0;
        if (t->set_count++ == MAX_SETS) stop(path, "too many sets");
        if (sscanf(line, "%d,%d,%n", &s->label, &s->count, &at) != 2 || at == 0 ||
            s->label < 0 || s->label >= t->label_count)
            stop(path, "a line is not label,count,symptoms");
        for (char *p = strtok(line + at, ";\n"); p != NULL; p = strtok(NULL, ";\n")) {
            if (s->n == MAX_IN_SET) stop(path, "a set is too large");
            s->symptom[s->n++] = symptom_id(t, p);
        }
    }
    fclose(f);
}

/* ---- one text ----------------------------------------------------------------------------- */

static int contains(const symptom_set *s, int symptom) {
    for (int i = 0; i < s->n; i++)
        if (s->symptom[i] == symptom) return 1;
    return 0;
}

/* Writes the phrases of one rendering, in random order, with one blank between them. */
static void render(FILE *f, const table *t, const symptom_set *s, int test, double leave_out,
                   uint64_t *rnd) {
    int phrase[MAX_IN_SET + 3], n = 0;
    int skip = !test && s->n > 3 && chance(rnd, leave_out) ? below(rnd, s->n) : -1;
    for (int i = 0; i < s->n; i++)
        if (i != skip) phrase[n++] = s->symptom[i];
    for (int denied = 0; denied < 3; denied++) {
        int symptom = below(rnd, t->symptom_count);
        if (!contains(s, symptom)) phrase[n++] = ~symptom;
    }
    shuffle(rnd, phrase, n);
    for (int i = 0; i < n; i++) {
        int         yes = phrase[i] >= 0, symptom = yes ? phrase[i] : ~phrase[i];
        int         forms = yes ? (test ? POSITIVE_ALL : POSITIVE_TRAIN)
                                : (test ? NEGATIVE_ALL : NEGATIVE_TRAIN);
        const char *form = (yes ? positive : negative)[below(rnd, forms)];
        const char *hole = strstr(form, "%s");
        if (i > 0) fputc(' ', f);
        fprintf(f, "%.*s%s%s", (int)(hole - form), form, t->symptoms[symptom], hole + 2);
    }
}

/* ---- files -------------------------------------------------------------------------------- */

/* Writes rows (indices of sets), each rendered so many times, shuffled. */
static void write_file(const table *t, const options *o, const char *name, const int *rows, int n,
                       int renderings, int test, uint64_t *rnd) {
    char  path[512];
    FILE *f = open_file(o->output, name, "w", path);
    int  *order = (int *)malloc((size_t)n * sizeof *order + 1);
    if (order == NULL) stop(path, "out of memory");
    if (n > 0) memcpy(order, rows, (size_t)n * sizeof *order);
    fputs("symptoms,prognosis\n", f);
    for (int r = 0; r < renderings; r++) {
        shuffle(rnd, order, n);
        for (int i = 0; i < n; i++) {
            const symptom_set *s = &t->sets[order[i]];
            fputc('"', f);
            render(f, t, s, test, o->leave_out, rnd);
            fprintf(f, "\",\"%s\"\n", t->labels[s->label]);
        }
    }
    free(order);
    if (fflush(f) != 0 || fclose(f) != 0) stop(path, "cannot be written");
    printf("%-20s %6d rows\n", name, n * renderings);
}

typedef struct split {
    int train[MAX_ROWS], valid[MAX_ROWS], known[MAX_ROWS], unseen[MAX_ROWS];
    int trains, valids, knowns, unseens;
} split;

/* One disease: a fifth of its sets (at least one) is held out whole; of the rows of the other
 * sets a fifth is the test of known sets, and what validation asks for is set aside. */
static void split_label(const table *t, int label, double validation, split *out, uint64_t *rnd) {
    int sets[MAX_SETS], rows[MAX_ROWS], n = 0, m = 0;
    for (int i = 0; i < t->set_count; i++)
        if (t->sets[i].label == label) sets[n++] = i;
    shuffle(rnd, sets, n);
    int held = n / 5 > 0 ? (n + 2) / 5 : 1;
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < t->sets[sets[i]].count; c++) {
            if (i < held) out->unseen[out->unseens++] = sets[i];
            else rows[m++] = sets[i];
        }
    }
    shuffle(rnd, rows, m);
    int test = (m + 2) / 5, valid = (int)((m - test) * validation);
    for (int i = 0; i < m; i++) {
        if (i < test) out->known[out->knowns++] = rows[i];
        else if (i < test + valid) out->valid[out->valids++] = rows[i];
        else out->train[out->trains++] = rows[i];
    }
}

static options parse(int argc, char **argv) {
    options o = {"data", NULL, 0, 1, 0.0, 0.0};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--data") == 0) o.data = value;
        else if (strcmp(name, "--output") == 0) o.output = value;
        else if (strcmp(name, "--seed") == 0) o.seed = strtoull(value, NULL, 10);
        else if (strcmp(name, "--renderings") == 0) o.renderings = atoi(value);
        else if (strcmp(name, "--leave-out") == 0) o.leave_out = atof(value);
        else if (strcmp(name, "--validation") == 0) o.validation = atof(value);
        else o.output = NULL, i = argc;
    }
    if (o.output == NULL || argc % 2 == 0 || o.renderings < 1) {
        fprintf(stderr, "usage: make_data --output DIR [--data data] [--seed 0] [--renderings 1] "
                        "[--leave-out 0] [--validation 0]\n");
        exit(2);
    }
    return o;
}

int main(int argc, char **argv) {
    static table t;
    static split s;
    options      o = parse(argc, argv);
    uint64_t     rnd = o.seed;
    read_labels(&t, o.data);
    read_sets(&t, o.data);
    for (int label = 0; label < t.label_count; label++)
        split_label(&t, label, o.validation, &s, &rnd);
    /* Each file has its own stream: --renderings does not change the tests. */
    uint64_t unseen = rnd + 1, known = rnd + 2, valid = rnd + 3, train = rnd + 4;
    write_file(&t, &o, "Testing_unseen.csv", s.unseen, s.unseens, 1, 1, &unseen);
    write_file(&t, &o, "Testing.csv", s.known, s.knowns, 1, 1, &known);
    if (s.valids > 0) write_file(&t, &o, "Validation.csv", s.valid, s.valids, 1, 0, &valid);
    write_file(&t, &o, "Training.csv", s.train, s.trains, o.renderings, 0, &train);
    return 0;
}
