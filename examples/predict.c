/* predict.c -- asks a model about every row of a file.
 *
 *     predict --model DIR --input notes.csv > answers.jsonl
 *
 * One record a row, in input order, flushed with every batch; results do not depend on the batch
 * size. With --evaluate the rows carry labels and the figures go to stderr and --report. */
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include "common.h"
#include "rows.h"
#include "models.h"
#include "answers.h"

typedef struct settings {
    const char *model, *input, *output, *report;
    int32_t     format, letter_case, dtype, logits, tokens, evaluate, benchmark;
    int64_t     top, batch, length, runs, warmup;
} settings;

typedef struct item { /* what a row of the batch is, beside its text */
    row_id   id;
    int32_t  label;
    uint64_t line;
} item;

typedef struct job {
    settings      *set;
    dp_model      *model;
    dp_session    *session;
    dp_model_info  info;
    sink           out;
    dp_text       *texts; /* of the batch: arrays of stb_ds */
    item          *items;
    float         *prob, *logits; /* [n, K] */
    dp_prediction *infos;
    int32_t       *order, *tokens;
    uint64_t       rows, truncated;
    score          score;
    timing         timing;
} job;

static void open_model(job *j) {
    dp_open_options    open;
    dp_session_options options;
    dp_error           err;
    dp_env             env = environment();
    DP_CLEAR(options);
    DP_CLEAR(open);
    open.dtype = (dp_dtype)j->set->dtype;
    require_files(dp_model_open_with(&env, j->set->model, &open, &j->model, &err), &err, END_MODEL);
    DP_CLEAR(j->info);
    dp_model_get_info(j->model, &j->info);
    if (open.dtype == DP_BF16 && j->info.bf16_linears == 0)
        say(WARNING, "--dtype bf16: every Linear of the layers is INT8");
    else if (open.dtype == DP_BF16) say_bf16(&j->info);
    if (j->set->evaluate) require_single_label(&j->info);
    j->set->length = fit_input(j->set->length, 512, &j->info);
    if (j->set->top > j->info.classes) j->set->top = j->info.classes;
    arrsetlen(j->order, j->info.classes);
    score_open(&j->score, j->model);
    options.max_tokens = (int32_t)j->set->length;
    options.letter_case = (dp_case)j->set->letter_case;
    require(dp_session_open(j->model, &options, &j->session, &err), &err, END_RUN);
}

/* The label's class when the row is to be evaluated; a row without one is at fault. */
static int32_t label_of_row(const job *j, reader *r) {
    const bytes *label = &r->field[FIELD_LABEL];
    if (!j->set->evaluate) return -1;
    int32_t cls = class_of(j->model, label->p, label->n);
    if (cls < 0) row_fault(r, "V4", r->row_place, "a label that the model lacks");
    return cls;
}

/* Fills the batch; 0 when the input is at its end or cannot be read on. An automatic batch does
 * not wait for rows that are not there yet. */
static int read_batch(job *j, reader *r) {
    size_t held = 0;
    while (j->set->batch < 0 || arrlen(j->items) < (j->set->batch > 0 ? j->set->batch : 32)) {
        int may_end = j->set->batch == 0 && arrlen(j->items) > 0;
        if (may_end && (held > 4194304 || reader_waits(r))) break;
        read_result got = read_row(r);
        heed_signal();
        if (got == READ_END || got == READ_FAILED) return 0;
        int32_t label = got == READ_ROW ? label_of_row(j, r) : -1;
        if (r->fault.rule[0] != 0) {
            report_row(r);
            continue;
        }
        item    it = {id_of_row(r), label, r->row_line};
        dp_text text = text_of_row(r);
        arrput(j->items, it);
        arrput(j->texts, text);
        held += text.a_bytes + text.b_bytes;
    }
    return 1;
}

/* Probabilities of the batch into j->prob; the arrays grow with the batch. */
static void run_batch(job *j) {
    dp_error  err;
    ptrdiff_t n = arrlen(j->texts), wide = n * j->info.classes;
    if (arrlen(j->prob) < wide) {
        arrsetlen(j->prob, wide);
        arrsetlen(j->logits, wide);
        arrsetlen(j->infos, n);
    }
    require(dp_predict_batch(j->session, j->texts, (size_t)n, j->prob, j->logits, j->infos, &err),
            &err, END_RUN);
}

static void forget_batch(job *j) {
    arrsetlen(j->texts, 0);
    arrsetlen(j->items, 0);
    wipe_documents();
}

/* ,"input_ids":[...] of a text, as the network saw it. */
static void put_tokens(job *j, const dp_text *text) {
    dp_encode_options options;
    dp_encoding       tokens;
    dp_error          err;
    DP_CLEAR(options);
    memset(&tokens, 0, sizeof tokens);
    options.max_tokens = (int32_t)j->set->length;
    options.letter_case = (dp_case)j->set->letter_case;
    arrsetlen(j->tokens, j->set->length);
    tokens.ids = j->tokens;
    tokens.cap = (size_t)j->set->length;
    require(dp_encode(j->model, text, &options, &tokens, &err), &err, END_RUN);
    for (size_t i = 0; i < tokens.n; i++)
        putf(&j->out, "%s%d", i == 0 ? ",\"input_ids\":[" : ",", (int)tokens.ids[i]);
    put(&j->out, "]", 1);
}

static void put_batch(job *j, const char *path) {
    ptrdiff_t n = arrlen(j->items);
    run_batch(j);
    for (ptrdiff_t row = 0; row < n; row++, j->rows++) {
        const float *prob = j->prob + row * j->info.classes;
        const float *logits = j->logits + row * j->info.classes;
        answer       a = {j->model, j->items[row].id, prob, j->set->logits ? logits : NULL,
                          j->order, j->info.classes, (int)j->set->top, j->infos[row].truncated};
        rank_classes(prob, a.classes, a.top, j->order);
        put_answer_begin(&j->out, j->set->format, j->rows == 0, &a);
        if (j->set->tokens) put_tokens(j, &j->texts[row]);
        put_answer_end(&j->out, j->set->format);
        j->truncated += a.truncated != 0;
        int finite = are_finite(prob, a.classes);
        self.failed_rows += !finite;
        if (!finite) say(WARNING, "%s: line %" PRIu64 ": the model gives a number that is not "
                         "finite", path, j->items[row].line);
        else if (j->set->evaluate) score_row(&j->score, j->items[row].label, prob, logits);
    }
    sink_flush(&j->out);
}

/* Times the first batch, as the kit does. */
static void benchmark(job *j) {
    double *times = NULL;
    for (int64_t run = -j->set->warmup; run < j->set->runs; run++) {
        double start = seconds();
        run_batch(j);
        if (run >= 0) arrput(times, seconds() - start);
        heed_signal();
    }
    j->timing = timing_of(times, (uint64_t)arrlen(j->items));
    say_timing(&j->timing);
    arrfree(times);
}

static void write_report(job *j) {
    if (j->set->report == NULL) return;
    sink out = sink_open(j->set->report);
    putf(&out, "{\"program\":\"predict\",\"rows\":%" PRIu64 ",\"failed_rows\":%" PRIu64
         ",\"truncated\":%" PRIu64 ",", j->rows, self.failed_rows, j->truncated);
    put_options(&out);
    if (j->set->evaluate) put_score(&out, &j->score);
    if (j->timing.runs > 0) put_timing(&out, &j->timing);
    putf(&out, "}\n");
    sink_close(&out);
}

static settings *read_settings(int argc, char **argv) {
    static settings     s;
    static const option rows[] = {
        {"model saved_model_dir", TEXT, &s.model, NULL, "DIR", 0, 0, "model directory, any kind"},
        {"input input_file", TEXT, &s.input, NULL, "F", 0, 0, "CSV, JSONL or lines; - is stdin"},
        {"output", TEXT, &s.output, "-", "F", 0, 0, "where the records go"},
        {"format", CHOICE, &s.format, "jsonl", "jsonl|kit|csv|tsv", 0, 0, "of the records"},
        {"top", INTEGER, &s.top, "5", "K", 1, 65536, "most probable classes to print"},
        {"batch-size", INTEGER, &s.batch, NULL, "N", -1, 1 << 30,
         "rows computed together; -1: all [auto]"},
        {"seq-length", INTEGER, &s.length, NULL, "N", 3, 1048576,
         "tokens of a text at most [512, or the model's positions]"},
        {"dtype", CHOICE, &s.dtype, "f32", "f32|bf16", 0, 0, "arithmetic of what is not INT8"},
        {"case", CHOICE, &s.letter_case, "model", "model|lower|keep", 0, 0, "case rule"},
        {"logits", FLAG, &s.logits, NULL, NULL, 0, 0, "add the logits of all classes"},
        {"tokens", FLAG, &s.tokens, NULL, NULL, 0, 0, "add the token ids"},
        {"evaluate", FLAG, &s.evaluate, NULL, NULL, 0, 0, "the input has labels: measure"},
        {"report", TEXT, &s.report, NULL, "F", 0, 0, "figures as JSON"},
        {"benchmark benchmark_mode", FLAG, &s.benchmark, NULL, NULL, 0, 0, "time the first batch"},
        {"runs n_runs", INTEGER, &s.runs, "100", "N", 1, 1e9, "timed runs of --benchmark"},
        {"warmup", INTEGER, &s.warmup, "20", "N", 0, 1e9, "runs before them"},
        {"bf16", FLAG, &s.dtype, NULL, NULL, 0, 0, "the same as --dtype bf16"},
        {"is-inc-int8", UNNEEDED, NULL, NULL, NULL, 0, 0, "accepted, unneeded"},
    };
    parse_options(argc, argv, rows, COUNT(rows),
                  "usage: predict --model DIR --input F [options]    (predict --help lists them)\n"
                  "example: build/predict --model model --input notes.csv --top 3\n");
    if (s.model == NULL || s.input == NULL) stop(END_USAGE, "--model and --input are needed");
    if ((s.logits || s.tokens) && s.format != JSONL)
        stop(END_USAGE, "--logits and --tokens belong to --format jsonl");
    if (s.report != NULL && is_stdout(s.report) && is_stdout(s.output))
        stop(END_USAGE, "--report and --output are both stdout");
    refuse_existing(s.output);
    if (s.report != NULL) refuse_existing(s.report);
    open_log(NULL);
    return &s;
}

int main(int argc, char **argv) {
    static job j;
    start_program("predict");
    j.set = read_settings(argc, argv);
    open_model(&j);
    reader r = reader_open(j.set->input, j.set->evaluate ? NEED_TEXT | NEED_LABEL : NEED_TEXT);
    j.out = sink_open(j.set->benchmark ? "-" : j.set->output); /* which writes no records */
    for (int more = 1; more && j.timing.runs == 0;) {
        more = read_batch(&j, &r);
        if (arrlen(j.items) == 0) break;
        if (j.set->benchmark) benchmark(&j);
        else put_batch(&j, r.path);
        forget_batch(&j);
        show_progress(j.rows, 0, "rows", "");
    }
    if (j.rows > 0) put_answers_end(&j.out, j.set->format);
    sink_flush(&j.out);
    if (r.fault.fatal) report_file(&r);
    sink_close(&j.out);
    if (r.rows == 0) say(WARNING, "%s: no rows", r.path);
    if (j.set->evaluate && j.rows > 0) say_score(&j.score);
    write_report(&j);
    dp_session_close(j.session);
    dp_model_close(j.model);
    uint64_t rows = r.rows;
    reader_close(&r);
    finish_rows(rows);
}
