/* models.h -- what the programs do with models: start from a directory or from nothing, see that
 * no output is an input, and prepare, lock and fill an output directory. Include it once, after
 * rows.h. */
#ifndef MODELS_H
#define MODELS_H

#include <sys/file.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function" /* no program needs all of it */
#endif

/* Where the weights to begin with come from. */
typedef struct model_source {
    const char  *directory;      /* a model, or NULL: new weights from config and vocab */
    const char  *config, *vocab; /* tiny, mini, small, medium, base or a file; a file */
    dp_case      letter_case;
    const char **labels; /* array of stb_ds: the classes of the data */
    int          keep_head; /* 1: a model's head stays if it knows every label */
} model_source;

/* As require(), for a call that reads or writes files: says what the system said. What is missing
 * has a sentence of its own, and files that need not be there leave ENOENT behind. */
static void require_files(dp_status status, const dp_error *err, int code) {
    if (status == DP_E_IO && errno != 0 && errno != ENOENT)
        stop(exit_of(status, code), "%s: %s", err->text, strerror(errno));
    require(status, err, code);
}

/* A model comes from a directory, or is new, of a configuration and a vocabulary; not both. */
static void choose_source(const char *directory, const char **config, const char **vocab) {
    if (directory != NULL && (*config != NULL || *vocab != NULL))
        stop(END_USAGE, "--config and --vocab make a new model; --model names one");
    if (directory == NULL && *config == NULL) *config = "mini";
    if (directory != NULL || *vocab != NULL) return;
    *vocab = "data/bert-base-cased-vocab.txt";
    if (access(*vocab, R_OK) != 0)
        stop(END_MODEL, "%s: cannot be read: %s; --vocab names a vocabulary (make install puts one "
             "into share/diseasepred)", *vocab, strerror(errno));
}

/* config.json of a new model: one of Google's BERT miniatures, or a file. */
static bytes model_config(const char *name, const bytes *vocab) {
    static const struct { const char *name; int layers, hidden; } sizes[] = {
        {"tiny", 2, 128}, {"mini", 4, 256}, {"small", 4, 512}, {"medium", 8, 512},
        {"base", 12, 768},
    };
    bytes  config = {NULL, 0, 0};
    size_t lines = vocab->n > 0 && vocab->p[vocab->n - 1] != '\n';
    for (size_t i = 0; i < vocab->n; i++) lines += vocab->p[i] == '\n';
    for (int i = 0; i < COUNT(sizes); i++) {
        if (strcmp(name, sizes[i].name) != 0) continue;
        char *text = text_of(
            "{\"architectures\":[\"BertForSequenceClassification\"],\"model_type\":\"bert\","
            "\"vocab_size\":%zu,\"num_hidden_layers\":%d,\"hidden_size\":%d,"
            "\"num_attention_heads\":%d,\"intermediate_size\":%d}", lines, sizes[i].layers,
            sizes[i].hidden, sizes[i].hidden / 64, sizes[i].hidden * 4);
        if (!bytes_add(&config, text, strlen(text))) stop(END_RUN, "out of memory");
        free(text);
        return config;
    }
    return read_file(name, DP_MAX_CONFIG_BYTES, END_MODEL);
}

static dp_model *new_model(const dp_env *env, const model_source *from) {
    dp_model_spec spec;
    dp_model     *model = NULL;
    dp_error      err;
    bytes         vocab = read_file(from->vocab, DP_MAX_VOCAB_BYTES, END_MODEL);
    bytes         config = model_config(from->config, &vocab);
    DP_CLEAR(spec);
    spec.config = config.p;
    spec.config_bytes = config.n;
    spec.vocab = vocab.p;
    spec.vocab_bytes = vocab.n;
    spec.labels = from->labels;
    spec.label_count = (int32_t)arrlen(from->labels);
    spec.letter_case = from->letter_case;
    spec.seed = (uint64_t)self.seed;
    require(dp_model_new(env, &spec, &model, &err), &err, END_MODEL);
    bytes_free(&vocab);
    bytes_free(&config);
    return model;
}

/* The model to start from. Its head stays when it knows every label of the data. */
static dp_model *start_model(const dp_env *env, const model_source *from) {
    dp_open_options options;
    dp_model       *model = NULL;
    dp_error        err;
    dp_model_info   info;
    dp_status       status;
    int             known = from->keep_head;
    if (from->directory == NULL) return new_model(env, from);
    DP_CLEAR(options);
    DP_CLEAR(info);
    options.new_head = 1;
    options.letter_case = from->letter_case;
    options.seed = (uint64_t)self.seed;
    errno = 0;
    status = dp_model_open_with(env, from->directory, &options, &model, &err);
    require_files(status, &err, END_MODEL);
    dp_model_get_info(model, &info);
    if (info.int8_linears > 0 || info.int8_tables > 0)
        stop(END_MODEL, "%s: an INT8 model cannot be trained", from->directory);
    if (info.new_tensors > 0)
        say(INFO, "%s: %d tensors of pooler or classifier are missing: new ones", from->directory,
            (int)info.new_tensors);
    for (ptrdiff_t i = 0; i < arrlen(from->labels) && known; i++)
        known = class_of(model, from->labels[i], strlen(from->labels[i])) >= 0;
    if (known) return model;
    say(INFO, "the labels are not the model's: a new head for %d classes",
        (int)arrlen(from->labels));
    dp_model_close(model);
    options.labels = from->labels;
    options.label_count = (int32_t)arrlen(from->labels);
    status = dp_model_open_with(env, from->directory, &options, &model, &err);
    require_files(status, &err, END_MODEL);
    return model;
}

/* Says so where --dtype bf16 has no instructions. */
static void say_bf16(const dp_model_info *info) {
    if (!info->bf16_native)
        say(INFO, "bf16: no such instructions here: rounded to bfloat16, computed in float32");
}

/* Stops when the model cannot learn from, or be measured on, rows with one label each. */
static void require_single_label(const dp_model_info *info) {
    if (info->problem != DP_SINGLE_LABEL)
        stop(END_MODEL, "a model for one label a row is needed; this one is %s",
             info->problem == DP_MULTI_LABEL ? "multi-label" : "a regression");
}

/* Stops when the options ask for more than the model can read: pairs, or too long a text. Returns
 * the length in tokens; INITIAL is the default, which a short model cuts. */
static int64_t fit_input(int64_t asked, int64_t initial, const dp_model_info *info) {
    if (self.pair_column != NULL && info->types < 2)
        stop(END_USAGE, "--pair-column: this model has one token type: it cannot read pairs");
    if (asked > info->positions)
        stop(END_USAGE, "--seq-length %d is more than the model's %d positions", (int)asked,
             (int)info->positions);
    return asked > 0 ? asked : initial < info->positions ? initial : info->positions;
}

/* The options of a step. --batch-size -1 is all rows: in as many batches as the library wants,
 * which takes 65,536 rows in one; how a step is cut changes no bit of it. */
static void set_batch(dp_train_options *o, int64_t batch, int64_t accumulate, ptrdiff_t rows) {
    int64_t pieces = batch < 0 ? (rows + 65535) / 65536 : 1;
    if (accumulate < pieces) accumulate = pieces;
    o->batch_rows = (int32_t)(batch < 0 ? (rows + accumulate - 1) / accumulate : batch);
    o->accumulate = (int32_t)accumulate;
}

static int exists_in(const char *directory, const char *name) {
    struct stat about;
    char       *path = text_of("%s/%s", directory, name);
    int         found = stat(path, &about) == 0;
    free(path);
    return found;
}

/* Names in a directory that begin and end so, descending: an array of stb_ds. */
static char **list_directory(const char *directory, const char *begin, const char *end) {
    char **names = NULL;
    DIR   *dir = opendir(directory);
    if (dir == NULL) return NULL;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t n = strlen(entry->d_name), b = strlen(begin), e = strlen(end);
        if (n < b + e || memcmp(entry->d_name, begin, b) != 0 ||
            memcmp(entry->d_name + n - e, end, e) != 0) continue;
        char     *name = text_of("%s", entry->d_name);
        ptrdiff_t at = arrlen(names);
        arrput(names, name);
        for (; at > 0 && strcmp(names[at - 1], name) < 0; at--) names[at] = names[at - 1];
        names[at] = name;
    }
    closedir(dir);
    return names;
}

static char **list_checkpoints(const char *directory) {
    return list_directory(directory, "ckpt-", ".dpck");
}

static void free_names(char **names) {
    for (ptrdiff_t i = 0; i < arrlen(names); i++) free(names[i]);
    arrfree(names);
}

/* Do two paths lead to one file? It need not exist yet. */
static int same_file(const char *a, const char *b) {
    struct stat x, y;
    const char *a_name, *b_name;
    int         found = (stat(a, &x) == 0) + (stat(b, &y) == 0);
    if (found == 2) return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    if (found == 1 || strcmp(a, b) == 0) return !found;
    char *a_in = directory_of(a, &a_name), *b_in = directory_of(b, &b_name);
    int   same = strcmp(a_name, b_name) == 0 && stat(a_in, &x) == 0 && stat(b_in, &y) == 0 &&
               x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    free(a_in);
    free(b_in);
    return same;
}

/* Is that a name which model directories are made of, or a checkpoint's? */
static int is_model_name(const char *name) {
    static const char *const ends[] = {"config.json", "vocab.txt", ".safetensors", ".dpck",
        "tokens_map.json", "added_tokens.json", ".index.json", "tokenizer.json",
        "training_report.json", "diseasepred.json"};
    size_t n = strlen(name);
    for (int i = 0; i < COUNT(ends); i++)
        if (n >= strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0) return 1;
    return 0;
}

/* Does a path lead to a file of the model in a directory, or would it become one? */
static int in_model(const char *path, const char *directory) {
    const char *name;
    char       *parent = directory_of(path, &name);
    int         found = is_model_name(name) && same_file(parent, directory);
    DIR        *dir = opendir(directory);
    for (struct dirent *entry; !found && dir != NULL && (entry = readdir(dir)) != NULL;) {
        char *file = text_of("%s/%s", directory, entry->d_name);
        found = is_model_name(entry->d_name) && same_file(path, file);
        free(file);
    }
    if (dir != NULL) closedir(dir);
    free(parent);
    return found;
}

/* A file that is written belongs to one option alone, however the others spell its name, and to
 * no model directory that is read or written. */
static void refuse_shared(const char *path) {
    struct stat about;
    int         times = 0;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) return;
    for (int i = 0; i < self.option_count; i++) {
        const option *o = &self.options[i];
        const char   *p = o->kind == TEXT ? *(const char **)o->to : NULL;
        if (p == NULL) continue;
        times += strchr(o->values, 'F') != NULL && same_file(path, p);
        if (strcmp(o->values, "DIR") == 0 && in_model(path, p))
            stop(END_USAGE, "%s: is a file of %s, which another option names", path, p);
    }
    if (times > 1) stop(END_USAGE, "%s: two options name this file", path);
}

/* An output that exists is refused unless --force is given; pipes and devices are no files. */
static void refuse_existing(const char *path) {
    struct stat about;
    if (!is_stdout(path)) refuse_shared(path);
    if (is_stdout(path) || self.force || lstat(path, &about) != 0) return;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode) && !S_ISDIR(about.st_mode)) return;
    stop(END_USAGE, "%s: exists; --force replaces it", path);
}

/* Opens the log, which may lie in an output directory that is not there yet (NULL: there is none).
 * Last of the options: what they mean is known by then. */
static void open_log(const char *output) {
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC;
    if (self.log_path == NULL) return;
    if (strcmp(self.log_path, "-") == 0) stop(END_USAGE, "--logfile -: stdout carries data only");
    refuse_shared(self.log_path);
    self.log_fd = open(self.log_path, flags, 0600);
    if (self.log_fd < 0 && errno == ENOENT && output != NULL && mkdir(output, 0777) == 0) {
        self.log_fd = open(self.log_path, flags, 0600);
        if (self.log_fd < 0 && rmdir(output) == 0) errno = ENOENT;
    }
    if (self.log_fd < 0 && errno == EINTR) heed_signal(); /* a pipe that nobody reads */
    if (self.log_fd < 0) stop(END_RUN, "%s: cannot be written: %s", self.log_path,
                              strerror(errno));
}

/* Early: a directory that is written holds no file that is read, under whatever name. */
static void check_replaced(const char *output, const char *model) {
    char **names = list_directory(output, "", "");
    for (int i = 0; i < self.option_count; i++) {
        const option *o = &self.options[i];
        const char   *p = o->kind == TEXT && strchr(o->values, 'F') ? *(const char **)o->to : NULL;
        if (p != NULL && in_model(p, output))
            stop(END_USAGE, "%s: an option names it, and %s is written", p, output);
    }
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        char *path = text_of("%s/%s", output, names[i]);
        if (model != NULL && is_model_name(names[i]) && in_model(path, model))
            stop(END_USAGE, "%s: is a file of the model that is read", path);
        free(path);
    }
    free_names(names);
}

/* Does a directory hold nothing but the log, which a run that failed early has begun? */
static int holds_log_only(const char *output) {
    char **names = list_directory(output, "", "");
    int    others = 0;
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        char *path = text_of("%s/%s", output, names[i]);
        others += strcmp(names[i], ".") != 0 && strcmp(names[i], "..") != 0 &&
                  !(self.log_path != NULL && same_file(path, self.log_path));
        free(path);
    }
    free_names(names);
    return others == 0;
}

/* Can a run go on in it: did none complete, or was one killed that was to replace its result? */
static int is_resumable(const char *output) {
    char **checkpoints = list_checkpoints(output);
    int    found = arrlen(checkpoints) > 0 || !exists_in(output, "config.json");
    free_names(checkpoints);
    return found;
}

/* Early: an output that exists needs --force, or --resume when there is a run to go on with. It is
 * never the directory of the model that is read. */
static void check_directory(const char *output, const char *model, int resume) {
    struct stat a, b;
    if (stat(output, &a) != 0) return;
    if (!S_ISDIR(a.st_mode)) stop(END_USAGE, "%s: exists and is not a directory", output);
    if (model != NULL && stat(model, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        stop(END_USAGE, "%s: is the directory of the model that is read", output);
    check_replaced(output, model);
    if (self.force || holds_log_only(output) || (resume && is_resumable(output))) return;
    stop(END_USAGE, "%s: exists; --force replaces it%s", output,
         resume ? " (its run is complete: there is nothing to resume)" : "");
}

/* Since this program began; what getrusage knows counts its parent's memory before exec, too. */
static double peak_megabytes(void) {
    double        kilobytes = 0;
    char          line[128];
    struct rusage use;
    FILE         *status = fopen("/proc/self/status", "re");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmHWM: %lf", &kilobytes) == 1) break;
    if (status != NULL) fclose(status);
    if (kilobytes > 0) return kilobytes / 1024;
    getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_maxrss / 1024;
}

/* Removes all checkpoints but the newest KEEP; their names sort by step. */
static void remove_checkpoints(const char *directory, ptrdiff_t keep) {
    char **names = list_checkpoints(directory);
    for (ptrdiff_t i = keep; i < arrlen(names); i++) {
        char *path = text_of("%s/%s", directory, names[i]);
        if (unlink(path) != 0) say(WARNING, "%s: cannot be removed: %s", path, strerror(errno));
        free(path);
    }
    if (arrlen(names) > keep) sync_directory(directory);
    free_names(names);
}

#ifndef DP_NO_TRAIN
/* Saves a checkpoint and removes those beyond two; three failures in a row end the run. */
static void save_checkpoint(dp_trainer *trainer, const char *directory, int *failed) {
    char     name[40];
    dp_error err;
    snprintf(name, sizeof name, "ckpt-%012" PRIu64 ".dpck", dp_trainer_step(trainer));
    dp_status status = dp_trainer_save(trainer, directory, name, &err);
    *failed = status == DP_OK ? 0 : *failed + 1;
    if (status == DP_OK) remove_checkpoints(directory, 2);
    else say(WARNING, "%s", err.text);
    if (*failed == 3) stop(END_RUN, "three checkpoints in a row could not be written");
}

/* Goes on from the newest checkpoint that is whole and belongs to this model and these options. */
static void resume_trainer(dp_trainer *trainer, const char *directory) {
    char   **names = list_checkpoints(directory);
    dp_error err;
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        if (dp_trainer_load(trainer, directory, names[i], &err) == DP_OK) {
            say(INFO, "resumed from %s", names[i]);
            free_names(names);
            return;
        }
        say(WARNING, "%s", err.text);
    }
    if (arrlen(names) > 0 && !self.force)
        stop(END_MODEL, "%s: no checkpoint can be used; --force starts from the beginning",
             directory);
    say(INFO, "no checkpoint to resume from: starting from the beginning");
    remove_checkpoints(directory, 0); /* else steps of another run count as the newest */
    free_names(names);
}
#endif

/* Files that a killed run left behind: NAME.tmp- and a number, decimal or hexadecimal. Those of
 * sinks begin with a dot and may be another program's, at work. */
static void remove_temporaries(const char *directory) {
    char **names = list_directory(directory, "", "");
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        const char *mark = strstr(names[i], ".tmp-");
        char       *path = text_of("%s/%s", directory, names[i]);
        size_t      n = mark != NULL && names[i][0] != '.' ? strlen(mark + 5) : 0;
        if (n > 0 && strspn(mark + 5, "0123456789abcdef") == n) unlink(path);
        free(path);
    }
    free_names(names);
}

/* Bytes of the checkpoints in a directory, which new ones replace. */
static double checkpoint_bytes(const char *directory) {
    char **names = list_checkpoints(directory);
    double total = 0;
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        struct stat about;
        char       *path = text_of("%s/%s", directory, names[i]);
        if (stat(path, &about) == 0) total += (double)about.st_size;
        free(path);
    }
    free_names(names);
    return total;
}

/* Stops where a file of the model cannot be put, because a directory has its name. */
static void refuse_directories(const char *output) {
    char **names = list_directory(output, "", "");
    for (ptrdiff_t i = 0; i < arrlen(names); i++) {
        struct stat about;
        char       *path = text_of("%s/%s", output, names[i]);
        if (is_model_name(names[i]) && lstat(path, &about) == 0 && S_ISDIR(about.st_mode))
            stop(END_RUN, "%s: is a directory", path);
        free(path);
    }
    free_names(names);
}

/* Makes the directory, locks it and tries what saving will do: create, fsync, remove. NEED is the
 * number of bytes that will be written. */
static void prepare_directory(const char *path, uint64_t need) {
    struct statvfs space;
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        stop(END_RUN, "%s: cannot be made: %s", path, strerror(errno));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* stays open: it holds the lock */
    if (fd < 0) stop(END_RUN, "%s: cannot be opened: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        stop(END_RUN, "%s: another run is writing into it", path);
    remove_temporaries(path);
    refuse_directories(path);
    char *trial = text_of("%s/preflight.tmp-%08lx", path, (unsigned long)getpid());
    int   file = open(trial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file >= 0) self.unfinished = trial; /* goes whatever happens below */
    if (file < 0 || write(file, "x", 1) != 1 || fsync(file) != 0 || close(file) != 0 ||
        unlink(trial) != 0) stop(END_RUN, "%s: cannot be written: %s", path, strerror(errno));
    double missing = (double)need - checkpoint_bytes(path);
    if (fstatvfs(fd, &space) == 0 && (double)space.f_bavail * (double)space.f_frsize < missing)
        stop(END_RUN, "%s: less than %.0f MB free", path, missing / 1e6);
    self.unfinished = NULL;
    free(trial);
}

/* Puts a model into a directory. The reports of the one that it replaces go with it, not before. */
static dp_status save_model(const dp_model *model, const char *directory, dp_error *err) {
    static const char *const reports[] = {"training_report.json", "diseasepred.json"};
    errno = 0;
    dp_status status = dp_model_save(model, directory, err);
    for (int i = 0; i < COUNT(reports) && status == DP_OK; i++) {
        char *path = text_of("%s/%s", directory, reports[i]);
        unlink(path);
        free(path);
    }
    return status;
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif /* MODELS_H */
