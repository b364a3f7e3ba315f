/* train.c -- fine-tunes a BERT classifier, or trains a small one from nothing.
 *
 *     train --data data --output model                   new weights, mini
 *     train --data data --output model --model bert-dir  from a Hugging Face directory
 *
 * Until it ends the output holds checkpoints only. From one --resume goes on to the same bytes. */
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include "common.h"
#include "rows.h"
#include "models.h"
#include "answers.h"

typedef struct settings {
    const char *data, *train, *valid, *labels, *model, *config, *vocab, *output;
    int64_t     epochs, batch, length, accumulate, every;
    double      lr, weight_decay, warmup, grad_norm, dropout;
    int32_t     optimizer, schedule, letter_case, dtype, resume;
} settings;

typedef struct run {
    settings          *set;
    dp_env             env;
    label_entry       *names;
    data_set           train, valid;
    dp_model          *model;
    dp_trainer        *trainer;
    dp_train_progress *epochs; /* array of stb_ds: the line of each epoch */
    double            *took, started, epoch_started, trained; /* took: seconds of each epoch */
    uint64_t           epoch_rows, epoch_tokens, resumed;
    dp_train_report    report;
    int                failed_saves;
} run;

static settings *read_settings(int argc, char **argv) {
    static settings     s;
    static const option rows[] = {
        {"data data_dir", TEXT, &s.data, NULL, "DIR", 0, 0, "holds Training.csv and Testing.csv"},
        {"train", TEXT, &s.train, NULL, "F", 0, 0, "rows to learn from, instead of --data"},
        {"valid", TEXT, &s.valid, NULL, "F", 0, 0, "rows to measure after each epoch"},
        {"labels", TEXT, &s.labels, NULL, "F", 0, 0, "CSV of the classes [by first appearance]"},
        {"model bert_model", TEXT, &s.model, NULL, "DIR", 0, 0, "model to start from"},
        {"config", TEXT, &s.config, NULL, "NAME|F", 0, 0,
         "of a new model: tiny, mini, small, medium, base or a config.json [mini]"},
        {"vocab", TEXT, &s.vocab, NULL, "F", 0, 0, "new model's [data/bert-base-cased-vocab.txt]"},
        {"output save_model_dir", TEXT, &s.output, NULL, "DIR", 0, 0, "where the model goes"},
        {"epochs", INTEGER, &s.epochs, "3", "N", 0, 1e6, "0: save the starting model"},
        {"batch-size", INTEGER, &s.batch, "30", "N", -1, 65536, "rows; -1: all"},
        {"seq-length", INTEGER, &s.length, NULL, "N", 3, 1048576, "tokens of a text at most [64]"},
        {"lr", REAL, &s.lr, NULL, "X", 1e-30, 1, "learning rate [1e-5 with --model, 5e-4 without]"},
        {"optimizer", CHOICE, &s.optimizer, "adam", "adam|adamw", 0, 0, "of the weights"},
        {"weight-decay", REAL, &s.weight_decay, "0", "X", 0, 1e6, "of all weights, towards 0"},
        {"warmup", REAL, &s.warmup, "0", "X", 0, 1e9, "steps from 1 up, fraction below 1"},
        {"schedule", CHOICE, &s.schedule, "constant", "constant|linear", 0, 0, "linear: down to 0"},
        {"grad-norm", REAL, &s.grad_norm, "10", "X", 0, 1e30, "global clipping; 0: none"},
        {"dropout", REAL, &s.dropout, NULL, "P", 0, 0.99, "share of values dropped [the model's]"},
        {"case", CHOICE, &s.letter_case, "model", "model|lower|keep", 0, 0, "case rule"},
        {"dtype", CHOICE, &s.dtype, "f32", "f32|bf16", 0, 0, "of the layers' products"},
        {"accumulate", INTEGER, &s.accumulate, "1", "N", 1, 65536, "batches of a step"},
        {"checkpoint-every", INTEGER, &s.every, "1000", "STEPS", 0, 1e15, "0: on signals only"},
        {"resume", FLAG, &s.resume, NULL, NULL, 0, 0, "go on from the newest checkpoint"},
        {"bf16", FLAG, &s.dtype, NULL, NULL, 0, 0, "the same as --dtype bf16"},
    };
    s.dropout = -1;
    parse_options(argc, argv, rows, COUNT(rows),
                  "usage: train --data DIR --output DIR [options]    (train --help lists them)\n"
                  "example: build/train --data build/demo/data --output model --config mini\n");
    if (s.data != NULL && (s.train != NULL || s.valid != NULL))
        stop(END_USAGE, "--data stands for --train and --valid: give one or the other");
    if (s.data != NULL) s.train = text_of("%s/Training.csv", s.data);
    if (s.data != NULL) s.valid = text_of("%s/Testing.csv", s.data);
    if (s.train == NULL || s.output == NULL) stop(END_USAGE, "needed: --data or --train, --output");
    if (s.epochs == 0 && s.resume) stop(END_USAGE, "--epochs 0: there is nothing to resume");
    if (s.batch == 0) stop(END_USAGE, "--batch-size 0: a batch has rows");
    choose_source(s.model, &s.config, &s.vocab);
    if (s.lr == 0) s.lr = s.model != NULL ? 1e-5 : 5e-4;
    check_directory(s.output, s.model, s.resume);
    open_log(s.output);
    return &s;
}

static void epoch_line(run *r, const dp_train_progress *now) {
    double took = fmax(r->trained - r->epoch_started, 1e-9); /* without the validation */
    char   valid[96] = "";
    if (r->set->valid != NULL)
        snprintf(valid, sizeof valid, ", validation accuracy %.4f, macro-F1 %.4f, loss %.4f",
                 now->valid_accuracy, now->valid_f1, now->valid_loss);
    if (isnan(now->loss))
        say(WARNING, "epoch %d/%d: no step was applied", (int)now->epoch, (int)r->set->epochs);
    else say(INFO, "epoch %d/%d: loss %.4f, training accuracy %.4f%s, %.1f rows/s, %.0f tokens/s",
        (int)now->epoch, (int)r->set->epochs, now->loss, now->accuracy, valid,
        (double)(now->rows - r->epoch_rows) / took, (double)(now->tokens - r->epoch_tokens) / took);
    arrput(r->epochs, *now);
    arrput(r->took, took);
    r->epoch_started = seconds();
    r->epoch_rows = now->rows;
    r->epoch_tokens = now->tokens;
}

/* Called by dp_train after steps, epochs and pieces of validation; not 0 asks it to stop. */
static int32_t on_progress(void *ctx, const dp_train_progress *now) {
    run *r = (run *)ctx;
    char detail[64];
    if (now->valid_rows > 0) return stop_signal != 0;
    if (now->epoch_done) epoch_line(r, now);
    else r->trained = seconds();
    if (!now->epoch_done && r->set->every > 0 && now->step < now->steps &&
        now->step % (uint64_t)r->set->every == 0)
        save_checkpoint(r->trainer, r->set->output, &r->failed_saves);
    snprintf(detail, sizeof detail, ", loss %.4f", now->loss);
    show_progress(now->step, now->steps, "steps", detail);
    return stop_signal != 0;
}

static void open_trainer(run *r) {
    dp_train_options o;
    dp_error         err;
    DP_CLEAR(o);
    o.epochs = (int32_t)r->set->epochs;
    set_batch(&o, r->set->batch, r->set->accumulate, arrlen(r->train.texts));
    o.max_tokens = (int32_t)r->set->length;
    o.lr = r->set->lr;
    o.optimizer = (dp_optimizer)r->set->optimizer;
    o.schedule = (dp_schedule)r->set->schedule;
    o.weight_decay = r->set->weight_decay;
    o.warmup = r->set->warmup;
    o.grad_norm = r->set->grad_norm > 0 ? r->set->grad_norm : -1;
    o.dropout = r->set->dropout < 0 ? 0 : r->set->dropout > 0 ? r->set->dropout : -1;
    o.seed = (uint64_t)self.seed;
    o.dtype = (dp_dtype)r->set->dtype;
    o.resume = r->set->resume;
    o.progress = on_progress;
    o.progress_ctx = r;
    dp_status status = dp_trainer_open(r->model, &o, &r->trainer, &err);
    require(status, &err, status == DP_E_ARG ? END_USAGE : END_MODEL);
    dp_model_close(r->model);
    r->model = NULL;
}

/* Reads the data and opens model and trainer; nothing is written before all of that is sound. */
static void prepare(run *r) {
    dp_model_info info;
    DP_CLEAR(info);
    if (r->set->labels != NULL) load_labels(r->set->labels, &r->names);
    ptrdiff_t given = shlen(r->names);
    r->train = load_data(r->set->train, &r->names);
    ptrdiff_t classes = given > 0 ? given : shlen(r->names);
    if (classes < 2) stop(END_DATA, "%s: a single class", r->set->train);
    model_source from = {r->set->model, r->set->config, r->set->vocab, (dp_case)r->set->letter_case,
                         NULL, r->set->labels == NULL};
    for (ptrdiff_t i = 0; i < classes; i++) arrput(from.labels, r->names[i].key);
    if (r->set->valid != NULL) r->valid = load_data(r->set->valid, &r->names);
    r->model = start_model(&r->env, &from);
    resolve_labels(&r->train, r->names, r->model, 0);
    if (r->set->valid != NULL) resolve_labels(&r->valid, r->names, r->model, END_DATA);
    compare_classes(&r->train, &r->valid, r->model);
    dp_model_get_info(r->model, &info);
    require_single_label(&info);
    r->set->length = fit_input(r->set->length, 64, &info);
    say(INFO, "%" PRIu64 " parameters, %d classes, %td training rows, %td validation rows, seed %"
        PRId64 ", %d threads%s", info.parameters, (int)info.classes, arrlen(r->train.texts),
        arrlen(r->valid.texts), self.seed, (int)r->env.threads, r->set->dtype ? ", bf16" : "");
    if (r->set->dtype == DP_BF16) say_bf16(&info);
    if (r->set->epochs > 0) open_trainer(r);
    prepare_directory(r->set->output, (r->set->epochs > 0 ? 24 : 4) * info.parameters);
}

/* Trains; afterwards r->model is the result. A signal ends the program with a checkpoint. */
static void train_model(run *r) {
    dp_dataset train = view_of(&r->train), valid = view_of(&r->valid);
    dp_error   err;
    if (r->set->resume) resume_trainer(r->trainer, r->set->output);
    else remove_checkpoints(r->set->output, 0);
    self.done_before = r->resumed = dp_trainer_step(r->trainer);
    self.started = r->started = r->epoch_started = r->trained = seconds();
    DP_CLEAR(r->report);
    dp_dataset *measured = r->set->valid != NULL ? &valid : NULL;
    dp_status   status = dp_train(r->trainer, &train, measured, &r->report, &err);
    if (status == DP_E_STOPPED) {
        save_checkpoint(r->trainer, r->set->output, &r->failed_saves);
        if (r->failed_saves > 0) stop(END_RUN, "stopped by a signal, without a checkpoint");
        say(INFO, "checkpoint at step %" PRIu64 "; --resume goes on from it",
            dp_trainer_step(r->trainer));
        heed_signal();
    }
    require(status, &err, status && err.rule[0] == 'K' ? END_MODEL : END_RUN); /* K13, K14 */
    require(dp_trainer_model(r->trainer, &r->model, &err), &err, END_RUN);
}

static void put_epoch(sink *out, const dp_train_progress *e, double took) {
    const struct { const char *name; double value; } figures[] = {
        {"loss", e->loss}, {"accuracy", e->accuracy}, {"valid_loss", e->valid_loss},
        {"valid_accuracy", e->valid_accuracy}, {"valid_macro_f1", e->valid_f1}, {"seconds", took}};
    putf(out, "{\"epoch\":%d,\"step\":%" PRIu64, (int)e->epoch, e->step);
    for (int i = 0; i < COUNT(figures); i++) {
        putf(out, ",\"%s\":", figures[i].name);
        put_real(out, "%.10g", figures[i].value);
    }
    put(out, "}", 1);
}

static void write_report(const run *r, double accuracy, double took) {
    char *path = text_of("%s/training_report.json", r->set->output);
    sink  out = sink_open(path);
    putf(&out, "{\"program\":\"train\",\"version\":%d,\"threads\":%d,\"resumed_from_step\":%" PRIu64
         ",\"failed_rows\":%" PRIu64 ",\"skipped_steps\":%" PRIu64 ",", (int)dp_version(),
         (int)r->env.threads, r->resumed, self.failed_rows, r->report.skipped_steps);
    put_options(&out);
    put_data(&out, "train", &r->train);
    put_data(&out, "valid", &r->valid);
    for (ptrdiff_t i = 0; i < arrlen(r->epochs); i++) {
        putf(&out, "%s", i == 0 ? ",\"epochs\":[" : ",");
        put_epoch(&out, &r->epochs[i], r->took[i]);
    }
    putf(&out, "%s\"accuracy\":", arrlen(r->epochs) > 0 ? "]," : ",\"epochs\":[],");
    put_real(&out, "%.10g", accuracy);
    putf(&out, ",\"training_seconds\":%.3f,\"peak_memory_mb\":%.1f}\n", took, peak_megabytes());
    sink_close(&out);
    free(path);
}

int main(int argc, char **argv) {
    static run r;
    double     accuracy = (double)NAN;
    dp_error   err;
    start_program("train");
    r.set = read_settings(argc, argv);
    r.env = environment();
    prepare(&r);
    uint64_t rows = (uint64_t)(arrlen(r.train.texts) + arrlen(r.valid.texts)) + self.failed_rows;
    if (r.set->epochs > 0) train_model(&r);
    double took = r.started > 0 ? seconds() - r.started : 0;
    if (arrlen(r.epochs) > 0)
        accuracy = r.set->valid ? arrlast(r.epochs).valid_accuracy : arrlast(r.epochs).accuracy;
    else if (r.set->valid != NULL) /* --epochs 0, or resumed behind the last epoch */
        accuracy = measure_accuracy(r.model, &r.valid, (int32_t)r.set->length);
    require_files(save_model(r.model, r.set->output, &err), &err, END_RUN);
    write_report(&r, accuracy, took);
    remove_checkpoints(r.set->output, 0);
    say(INFO, "%saccuracy %s, training time %.1f s, peak memory %.0f MB", r.set->valid ? "" :
        "training ", isnan(accuracy) ? "not measured" : text_of("%.4f", accuracy), took,
        peak_megabytes());
    dp_trainer_close(r.trainer);
    dp_model_close(r.model);
    if (r.report.skipped_steps > 0)
        say(WARNING, "%" PRIu64 " steps of the training were not applied", r.report.skipped_steps);
    if (r.report.skipped_steps > 0 && self.failed_rows == 0) finish(END_ROWS);
    finish_rows(rows);
}
