/* quantize.c -- makes an INT8 copy of a model and says what it cost.
 *
 *     quantize --model DIR --output DIR-int8 --data data/Testing.csv
 *
 * Dynamic INT8: weights per output channel, activations per token at run time. The copy is saved
 * in any case; exit code 5 says that it lost more accuracy than --criterion tolerates. */
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include "common.h"
#include "rows.h"
#include "models.h"
#include "answers.h"

typedef struct settings {
    const char *model, *output, *data, *criterion;
    int64_t     batch, length;
    int32_t     approach, weights, embeddings;
    int         relative;  /* 1: of the FP32 accuracy, 0: in points */
    double      tolerance; /* below 0: none */
} settings;

typedef struct side { /* a model measured */
    double   accuracy, macro_f1, seconds;
    uint64_t failed; /* rows without an answer */
} side;

typedef struct run {
    settings       *set;
    dp_env          env;
    dp_model       *model, *small;
    data_set        data;
    dp_quant_report report;
    side            fp32, int8;
    uint64_t        least; /* bytes that the new model has at least */
    int             met;
} run;

/* "relative:0.01", "absolute:0.005" or "none". */
static void parse_criterion(settings *s) {
    option number = {"criterion", REAL, NULL, NULL, NULL, 0, 1, NULL};
    s->relative = strncmp(s->criterion, "relative:", 9) == 0;
    s->tolerance = -1;
    if (strcmp(s->criterion, "none") == 0) return;
    if (!s->relative && strncmp(s->criterion, "absolute:", 9) != 0)
        stop(END_USAGE, "--criterion is relative:X, absolute:X or none");
    s->tolerance = parse_number(&number, s->criterion + 9);
}

static settings *read_settings(int argc, char **argv) {
    static settings     s;
    static const option rows[] = {
        {"model saved_model_dir", TEXT, &s.model, NULL, "DIR", 0, 0, "FP32 model directory"},
        {"output output_dir", TEXT, &s.output, NULL, "DIR", 0, 0, "where the INT8 model goes"},
        {"data input_file", TEXT, &s.data, NULL, "F", 0, 0, "rows with labels for the criterion"},
        {"approach", CHOICE, &s.approach, "dynamic", "dynamic|static*|auto*|qat*", 0, 0,
         "how activations get their scales"},
        {"criterion", TEXT, &s.criterion, NULL, "C", 0, 0,
         "tolerated loss of accuracy, relative:X, absolute:X or none [relative:0.01]"},
        {"weights", CHOICE, &s.weights, "pairs", "full|pairs|quads|auto*", 0, 0,
         "pairs, quads: less exact, faster on CPUs without VNNI; the same answer on every CPU"},
        {"embeddings", CHOICE, &s.embeddings, "keep", "keep|int8", 0, 0, "embedding tables"},
        {"batch-size", INTEGER, &s.batch, "10", "N", -1, 1e6, "changes no result"},
        {"seq-length", INTEGER, &s.length, NULL, "N", 3, 1048576,
         "tokens of a text at most [512, or the model's positions]"},
        {"strategy", LATER, NULL, NULL, "NAME", 0, 0, "tuning layer by layer"},
        {"max-trials", LATER, NULL, NULL, "N", 0, 0, "tuning layer by layer"},
        {"timeout", LATER, NULL, NULL, "S", 0, 0, "tuning layer by layer"},
        {"allow", LATER, NULL, NULL, "PATTERN", 0, 0, "a choice of layers"},
        {"deny", LATER, NULL, NULL, "PATTERN", 0, 0, "a choice of layers"},
        {"bf16", LATER, NULL, NULL, NULL, 0, 0, "bf16 arithmetic"},
        {"config inc_config_file", LATER, NULL, NULL, "F", 0, 0, "a configuration file"},
        {"export-config", LATER, NULL, NULL, "F", 0, 0, "calibration as JSON"},
        {"import-config", LATER, NULL, NULL, "F", 0, 0, "calibration as JSON"},
        {"diagnose", LATER, NULL, NULL, NULL, 0, 0, "a table of every layer"},
    };
    parse_options(argc, argv, rows, COUNT(rows),
                  "usage: quantize --model DIR --output DIR [options]    (quantize --help lists "
                  "them)\nexample: build/quantize --model model --output model-int8 "
                  "--data build/demo/data/Testing.csv\n");
    if (s.model == NULL || s.output == NULL) stop(END_USAGE, "--model and --output are needed");
    int asked = s.criterion != NULL && strcmp(s.criterion, "none") != 0;
    if (s.data == NULL && asked) stop(END_USAGE, "--criterion needs --data to be measured");
    if (s.criterion == NULL) s.criterion = s.data != NULL ? "relative:0.01" : "none";
    parse_criterion(&s);
    check_directory(s.output, s.model, 0);
    open_log(s.output);
    return &s;
}

static void open_model(run *r) {
    dp_model_info info;
    dp_error      err;
    DP_CLEAR(info);
    require_files(dp_model_open(&r->env, r->set->model, &r->model, &err), &err, END_MODEL);
    dp_model_get_info(r->model, &info);
    if (info.int8_linears > 0 || info.int8_tables > 0)
        stop(END_USAGE, "%s: is an INT8 model already", r->set->model);
    r->least = info.parameters;
    r->set->length = fit_input(r->set->length, 512, &info);
    if (r->set->data != NULL) require_single_label(&info);
}

static void load_rows(run *r) {
    label_entry *names = NULL;
    if (r->set->data == NULL) return;
    r->data = load_data(r->set->data, &names);
    resolve_labels(&r->data, names, r->model, 0);
}

static side measure_side(const run *r, const dp_model *model) {
    double start = seconds();
    score  found = measure(model, &r->data, (int32_t)r->set->length);
    side   s = {score_accuracy(&found), score_macro_f1(&found), seconds() - start, found.failed};
    score_close(&found);
    return s;
}

static void quantize(run *r) {
    dp_quant_options options;
    dp_dataset       rows = view_of(&r->data);
    dp_error         err;
    DP_CLEAR(options);
    DP_CLEAR(r->report);
    options.approach = (dp_approach)r->set->approach;
    options.weights = (dp_weights)r->set->weights;
    options.embeddings = r->set->embeddings;
    require(dp_quantize(r->model, r->set->data != NULL ? &rows : NULL, &options, &r->small,
                        &r->report, &err), &err, END_RUN);
    heed_signal();
}

/* Does the loss of accuracy stay within the criterion? Not if nothing was answered. */
static int criterion_met(const run *r) {
    double before = r->fp32.accuracy, lost = before - r->int8.accuracy;
    if (r->set->tolerance < 0) return 1;
    if (r->fp32.failed == (uint64_t)arrlen(r->data.texts)) return 0;
    double limit = r->set->relative ? r->set->tolerance * before : r->set->tolerance;
    return lost <= limit + 1e-9; /* 1 - 0.99 is above 0.01 in double; a row is more than that */
}

static void say_result(const run *r) {
    const dp_quant_report *q = &r->report;
    say(INFO, "%d Linears and %d embedding tables are INT8; weights %.2f MB, were %.2f MB "
        "as FP32 (%+.1f %%)", (int)q->linears, (int)q->tables, (double)q->bytes_after / 1e6,
        (double)q->bytes_before / 1e6,
        100 * ((double)q->bytes_after / (double)q->bytes_before - 1));
    say(INFO, "signal to quantization noise %.1f dB (%.1f dB below full-range weights), worst "
        "tensor %.1f dB", q->sqnr_db, q->full_db - q->sqnr_db, q->worst_db);
    if (r->set->data == NULL) return;
    const side *a = &r->fp32, *b = &r->int8;
    say(INFO, "%-14s %10s %10s %10s", "Info Type", "FP32", "INT8", "ratio");
    say(INFO, "%-14s %10.4f %10.4f %+10.4f", "Accuracy", a->accuracy, b->accuracy,
        b->accuracy - a->accuracy);
    say(INFO, "%-14s %10.4f %10.4f %+10.4f", "Macro-F1", a->macro_f1, b->macro_f1,
        b->macro_f1 - a->macro_f1);
    say(INFO, "%-14s %10.4f %10.4f %9.2fx", "Duration (s)", r->fp32.seconds, r->int8.seconds,
        r->fp32.seconds / r->int8.seconds);
    if (r->set->tolerance >= 0)
        say(r->met ? INFO : WARNING, "criterion %s: %s", r->set->criterion,
            r->met ? "met" : "not met; the model is saved all the same");
}

/* diseasepred.json beside the model: what was made, from what, and how good it is. */
static void write_report(const run *r) {
    char *path = text_of("%s/diseasepred.json", r->set->output);
    sink  out = sink_open(path);
    putf(&out, "{\"program\":\"quantize\",\"version\":%d,\"linears\":%d,\"tables\":%d,"
         "\"bytes_before\":%" PRIu64 ",\"bytes_after\":%" PRIu64 ",\"sqnr_db\":", (int)dp_version(),
         (int)r->report.linears, (int)r->report.tables, r->report.bytes_before,
         r->report.bytes_after);
    put_real(&out, "%.6g", r->report.sqnr_db);
    putf(&out, ",\"full_db\":");
    put_real(&out, "%.6g", r->report.full_db);
    putf(&out, ",\"criterion\":");
    put_json(&out, r->set->criterion, strlen(r->set->criterion));
    putf(&out, ",\"criterion_met\":%s,",
         r->set->tolerance < 0 ? "null" : r->met ? "true" : "false");
    put_options(&out);
    if (r->set->data != NULL) {
        putf(&out, ",\"data_sha256\":\"%s\",\"rows\":%td,\"accuracy_before\":", r->data.sha256,
             arrlen(r->data.texts));
        put_real(&out, "%.10g", r->fp32.accuracy);
        putf(&out, ",\"accuracy_after\":");
        put_real(&out, "%.10g", r->int8.accuracy);
        putf(&out, ",\"failed_before\":%" PRIu64 ",\"failed_after\":%" PRIu64, r->fp32.failed,
             r->int8.failed);
    }
    putf(&out, "}\n");
    sink_close(&out);
    free(path);
}

int main(int argc, char **argv) {
    static run r;
    dp_error   err;
    start_program("quantize");
    r.set = read_settings(argc, argv);
    r.env = environment();
    open_model(&r);
    load_rows(&r);
    prepare_directory(r.set->output, r.least);
    if (r.set->data != NULL) r.fp32 = measure_side(&r, r.model);
    quantize(&r);
    if (r.set->data != NULL) r.int8 = measure_side(&r, r.small);
    r.met = criterion_met(&r);
    require_files(save_model(r.small, r.set->output, &err), &err, END_RUN);
    write_report(&r);
    say_result(&r);
    dp_model_close(r.small);
    dp_model_close(r.model);
    if (!r.met) finish(END_CRITERION);
    uint64_t rows = (uint64_t)arrlen(r.data.texts) + self.failed_rows;
    self.failed_rows += r.fp32.failed > r.int8.failed ? r.fp32.failed : r.int8.failed;
    finish_rows(rows);
}
