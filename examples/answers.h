/* answers.h -- what a model answers: records in four formats, and figures of a run (how often the
 * model was right, how sure it was, which classes it confused, how long a batch takes). Include
 * it once, after rows.h. */
#ifndef ANSWERS_H
#define ANSWERS_H

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* no program needs all of it */
#endif

/* ---- records ------------------------------------------------------------------------------- */

enum { JSONL, KIT, CSV, TSV };

typedef struct answer { /* to one row */
    const dp_model *model;
    row_id          id;
    const float    *prob, *logits; /* [classes]; logits NULL: not wanted */
    const int32_t  *order;         /* [top] the most probable classes */
    int32_t         classes;
    int             top, truncated;
} answer;

/* {"id":0,"prognosis":{"Acne":0.9,...},"truncated":true,"logits":[...] without the last brace. */
static void put_json_answer(sink *out, const answer *a, int kit) {
    put(out, "{\"id\":", 6);
    if (a->id.number) put(out, a->id.p, a->id.n);
    else put_json(out, a->id.p, a->id.n);
    for (int k = 0; k < a->top; k++) {
        const char *label = dp_model_label(a->model, a->order[k]);
        putf(out, "%s", k == 0 ? ",\"prognosis\":{" : ",");
        put_json(out, label, strlen(label));
        put(out, ":", 1);
        put_real(out, "%.6g", (double)a->prob[a->order[k]]);
    }
    put(out, "}", 1);
    if (a->truncated && !kit) putf(out, ",\"truncated\":true");
    for (int32_t k = 0; k < a->classes && a->logits != NULL; k++) {
        putf(out, "%s", k == 0 ? ",\"logits\":[" : ",");
        put_real(out, "%.9g", (double)a->logits[k]);
    }
    if (a->logits != NULL) put(out, "]", 1);
}

/* id, then label and probability of each of the top classes, then truncated. */
static void put_table_answer(sink *out, const answer *a, char separator, int first) {
    for (int k = 1; k <= a->top && first; k++)
        putf(out, k == 1 ? "id%cprognosis_%d%cprobability_%d" : "%cprognosis_%d%cprobability_%d",
             separator, k, separator, k);
    if (first) putf(out, "%ctruncated\n", separator);
    put_cell(out, a->id.p, a->id.n, separator);
    for (int k = 0; k < a->top; k++) {
        const char *label = dp_model_label(a->model, a->order[k]);
        put(out, &separator, 1);
        put_cell(out, label, strlen(label), separator);
        put(out, &separator, 1);
        put_real(out, "%.6g", (double)a->prob[a->order[k]]);
    }
    putf(out, "%c%s", separator, a->truncated ? "true" : "false");
}

/* A record up to where more members may follow; first: what stands before all records. */
static void put_answer_begin(sink *out, int format, int first, const answer *a) {
    if (format == KIT) putf(out, "%s", first ? "{\"predictions\":[" : ",");
    if (format < CSV) put_json_answer(out, a, format == KIT);
    else put_table_answer(out, a, format == CSV ? ',' : '\t', first);
}

static void put_answer_end(sink *out, int format) {
    putf(out, "%s", format == JSONL ? "}\n" : format == KIT ? "}" : "\n");
}

/* What stands behind all records. */
static void put_answers_end(sink *out, int format) {
    if (format == KIT) putf(out, "]}\n");
}

/* ---- score --------------------------------------------------------------------------------- */

enum { SCORE_BINS = 15, SCORE_PAIRS = 5 };

typedef struct class_score { /* rows that have the class, that were given it, and both */
    uint64_t labelled, predicted, right;
} class_score;

typedef struct confusion { /* a map of stb_ds: label * classes + predicted -> rows */
    uint64_t key, value;
} confusion;

typedef struct score {
    const dp_model *model;
    int32_t         classes;
    class_score    *of; /* [classes] */
    confusion      *pairs;
    uint64_t        rows, right, failed, in_bin[SCORE_BINS]; /* failed: without an answer */
    double          nll, sure[SCORE_BINS], right_in[SCORE_BINS];
} score;

/* Are all n numbers finite? */
static int are_finite(const float *x, int32_t n) {
    while (n > 0 && isfinite(x[n - 1])) n--;
    return n == 0;
}

/* The classes of the TOP largest probabilities, descending; of equal ones the lower class. */
static void rank_classes(const float *prob, int32_t classes, int top, int32_t *order) {
    int held = 0;
    for (int32_t k = 0; k < classes; k++) {
        int at = held;
        while (at > 0 && prob[k] > prob[order[at - 1]]) at--;
        if (held < top) held++;
        if (at >= held) continue;
        memmove(order + at + 1, order + at, (size_t)(held - at - 1) * sizeof *order);
        order[at] = k;
    }
}

static void score_open(score *s, const dp_model *model) {
    dp_model_info info;
    DP_CLEAR(info);
    memset(s, 0, sizeof *s);
    dp_model_get_info(model, &info);
    s->model = model;
    s->classes = info.classes;
    arrsetlen(s->of, info.classes);
    memset(s->of, 0, (size_t)info.classes * sizeof *s->of);
}

static void score_close(score *s) {
    arrfree(s->of);
    hmfree(s->pairs);
}

/* Adds a row: its label, the probabilities and the logits [classes]. */
static void score_row(score *s, int32_t label, const float *prob, const float *logits) {
    int32_t best = 0;
    double  sum = 0, highest = (double)logits[0];
    for (int32_t k = 1; k < s->classes; k++) {
        if (prob[k] > prob[best]) best = k;
        if ((double)logits[k] > highest) highest = (double)logits[k];
    }
    for (int32_t k = 0; k < s->classes; k++) sum += exp((double)logits[k] - highest);
    double confidence = (double)prob[best];
    int    bin = (int)(confidence * (double)SCORE_BINS);
    if (bin < 0) bin = 0;
    if (bin >= SCORE_BINS) bin = SCORE_BINS - 1;
    s->rows++;
    s->right += best == label;
    s->nll += log(sum) + highest - (double)logits[label];
    s->in_bin[bin]++;
    s->sure[bin] += confidence;
    s->right_in[bin] += best == label;
    s->of[label].labelled++;
    s->of[best].predicted++;
    s->of[label].right += best == label;
    if (best == label) return;
    uint64_t  key = (uint64_t)label * (uint64_t)s->classes + (uint64_t)best;
    ptrdiff_t at = hmgeti(s->pairs, key);
    if (at >= 0) s->pairs[at].value++;
    else hmput(s->pairs, key, 1);
}

/* Of no rows every figure is NaN, which JSON writes as null. */
static double score_accuracy(const score *s) {
    return (double)s->right / (double)s->rows;
}

/* Mean of 2 right / (labelled + predicted) over the classes that occur on either side. */
static double score_macro_f1(const score *s) {
    double sum = 0, classes = 0;
    for (int32_t k = 0; k < s->classes; k++) {
        uint64_t both = s->of[k].labelled + s->of[k].predicted;
        if (both == 0) continue;
        sum += 2 * (double)s->of[k].right / (double)both;
        classes++;
    }
    return sum / classes;
}

static double score_nll(const score *s) {
    return s->nll / (double)s->rows;
}

/* Expected calibration error: |share of right answers - mean confidence|, weighted by bin. */
static double score_ece(const score *s) {
    double sum = 0;
    for (int b = 0; b < SCORE_BINS; b++) sum += fabs(s->right_in[b] - s->sure[b]);
    return sum / (double)s->rows;
}

static int pair_order(const void *a, const void *b) {
    const confusion *x = (const confusion *)a, *y = (const confusion *)b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->key < y->key ? -1 : x->key > y->key;
}

/* Pairs by number of rows; afterwards the map is only an array. */
static ptrdiff_t score_worst_pairs(score *s) {
    ptrdiff_t n = hmlen(s->pairs);
    if (n > 1) qsort(s->pairs, (size_t)n, sizeof *s->pairs, pair_order);
    return n < SCORE_PAIRS ? n : SCORE_PAIRS;
}

static const char *pair_label(const score *s, ptrdiff_t i, int predicted) {
    uint64_t classes = (uint64_t)s->classes, key = s->pairs[i].key;
    return dp_model_label(s->model, (int32_t)(predicted ? key % classes : key / classes));
}

static void say_score(score *s) {
    say(INFO, "accuracy %.4f (%" PRIu64 " of %" PRIu64 "), macro-F1 %.4f, NLL %.4f, ECE %.4f",
        score_accuracy(s), s->right, s->rows, score_macro_f1(s), score_nll(s), score_ece(s));
    ptrdiff_t n = score_worst_pairs(s);
    for (ptrdiff_t i = 0; i < n; i++)
        say(INFO, "  %" PRIu64 " x '%s' taken for '%s'", s->pairs[i].value, pair_label(s, i, 0),
            pair_label(s, i, 1));
}

/* ,"accuracy":...,"confusions":[...] behind other members of an object. */
static void put_score(sink *out, score *s) {
    const char *const names[] = {"accuracy", "macro_f1", "nll", "ece"};
    const double      values[] = {score_accuracy(s), score_macro_f1(s), score_nll(s), score_ece(s)};
    for (int i = 0; i < COUNT(names); i++) {
        putf(out, ",\"%s\":", names[i]);
        put_real(out, "%.10g", values[i]);
    }
    putf(out, ",\"confusions\":[");
    ptrdiff_t n = score_worst_pairs(s);
    for (ptrdiff_t i = 0; i < n; i++) {
        putf(out, "%s{\"rows\":%" PRIu64 ",\"label\":", i > 0 ? "," : "", s->pairs[i].value);
        put_json(out, pair_label(s, i, 0), strlen(pair_label(s, i, 0)));
        put(out, ",\"predicted\":", 13);
        put_json(out, pair_label(s, i, 1), strlen(pair_label(s, i, 1)));
        put(out, "}", 1);
    }
    put(out, "]", 1);
}

/* A row whose answer is not finite: it is named, and it is a wrong one. */
static void score_failed(score *s, const data_set *data, ptrdiff_t row) {
    say(WARNING, "%s: line %" PRIu64 ": the model gives a number that is not finite", data->path,
        data->lines[row]);
    s->rows++;
    s->failed++;
    s->of[data->labels[row]].labelled++;
}

/* The score of a model on a data set, by a session of its own. A signal ends the program; progress
 * is shown. */
static score measure(const dp_model *model, const data_set *data, int32_t max_tokens) {
    enum { BATCH = 64 };
    dp_session_options options;
    dp_session        *session = NULL;
    dp_error           err;
    score              s;
    float             *prob = NULL, *logits = NULL; /* arrays of stb_ds: [BATCH, K] */
    DP_CLEAR(options);
    options.max_tokens = max_tokens;
    require(dp_session_open(model, &options, &session, &err), &err, END_RUN);
    score_open(&s, model);
    arrsetlen(prob, BATCH * (ptrdiff_t)s.classes);
    arrsetlen(logits, BATCH * (ptrdiff_t)s.classes);
    self.started = seconds();
    self.done_before = 0;
    for (ptrdiff_t at = 0, n, all = arrlen(data->texts); at < all; at += n) {
        n = all - at < BATCH ? all - at : BATCH;
        require(dp_predict_batch(session, data->texts + at, (size_t)n, prob, logits, NULL, &err),
                &err, END_RUN);
        for (ptrdiff_t i = 0; i < n; i++) {
            const float *p = prob + i * s.classes;
            if (are_finite(p, s.classes))
                score_row(&s, data->labels[at + i], p, logits + i * s.classes);
            else score_failed(&s, data, at + i);
        }
        heed_signal();
        show_progress((uint64_t)(at + n), (uint64_t)all, "rows", "");
    }
    arrfree(prob);
    arrfree(logits);
    dp_session_close(session);
    return s;
}

/* The same: accuracy alone. */
static double measure_accuracy(const dp_model *model, const data_set *data, int32_t max_tokens) {
    score  s = measure(model, data, max_tokens);
    double accuracy = score_accuracy(&s);
    self.failed_rows += s.failed;
    score_close(&s);
    return accuracy;
}

/* ---- timing -------------------------------------------------------------------------------- */

typedef struct timing { /* of a batch, in milliseconds */
    double   mean, p50, p99, rows_per_second;
    int64_t  runs;
    uint64_t rows; /* of the batch */
} timing;

static int time_order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts the times (seconds, an array of stb_ds) and sums them up. */
static timing timing_of(double *times, uint64_t rows) {
    timing    t = {0, 0, 0, 0, (int64_t)arrlen(times), rows};
    ptrdiff_t n = arrlen(times);
    qsort(times, (size_t)n, sizeof *times, time_order);
    for (ptrdiff_t i = 0; i < n; i++) t.mean += times[i] * 1e3 / (double)n;
    t.p50 = times[n / 2] * 1e3;
    t.p99 = times[(n * 99 + 99) / 100 - 1] * 1e3; /* the nearest rank */
    t.rows_per_second = t.mean > 0 ? (double)rows / t.mean * 1e3 : 0;
    return t;
}

static void say_timing(const timing *t) {
    say(INFO, "batch of %" PRIu64 " rows, tokenization included, %" PRId64 " runs: mean %.3f ms, "
        "p50 %.3f ms, p99 %.3f ms, %.1f rows/s", t->rows, t->runs, t->mean, t->p50, t->p99,
        t->rows_per_second);
}

static void put_timing(sink *out, const timing *t) {
    putf(out, ",\"benchmark\":{\"batch_rows\":%" PRIu64 ",\"runs\":%" PRId64 ",\"mean_ms\":%.6g,"
         "\"p50_ms\":%.6g,\"p99_ms\":%.6g,\"rows_per_second\":%.6g}", t->rows, t->runs, t->mean,
         t->p50, t->p99, t->rows_per_second);
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif /* ANSWERS_H */
