/* test_network.c -- tests of part F. */

/* dp__params_draw must give these 3,072 numbers on every machine, for ever. */
#define NET_DRAW_DIGEST "8ab254cb56fce74e98e41a2b30a9209c851e42a7791c93a93fe22188c151e267"

/* ---- a network over a flat buffer ----------------------------------------------------------- */

typedef struct netrun { /* everything a pass needs, and what the oracle's file says */
    dp_env       env;
    dp__exec     exec;
    dp__config   config;
    dp__arena    arena;
    dp__params   params;
    dp__net      net;
    dp__work     work;
    dp__dropping drop;
    dp__batch    batch;
    dp_real     *flat, *grad, *targets; /* targets [B, K] */
    int32_t     *ids, *types, *labels;
    size_t       begin[65];
    uint32_t     seed;
    float        scale;
} netrun;

/* The 32-bit finalizer of MurmurHash3; weights and inputs as tools/gen_vectors.py makes them. */
static uint32_t net_hash(uint32_t stream, uint32_t index) {
    uint32_t x = index * 0x9E3779B1u + stream * 0x85EBCA77u;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    return x ^ x >> 16;
}

static float net_uniform(uint32_t stream, uint32_t index) {
    return ((float)(net_hash(stream, index) >> 8) - 8388608.0f) / 8388608.0f;
}

static float net_weight(const netrun *r, size_t t, uint32_t index) {
    const dp__tensor *x = &r->params.list[t];
    const char       *end = strstr(x->name, "LayerNorm.weight");
    float             u = net_uniform(r->seed * 1000 + (uint32_t)t, index);
    return end != NULL ? 1.0f + u * 0.25f : u * r->scale;
}

static dp_env net_env(dp_isa isa, int32_t threads) {
    dp_env env;
    DP_CLEAR(env);
    env.alloc.alloc = dp__default_alloc;
    env.alloc.free = dp__default_free;
    env.isa_cap = isa;
    env.threads = threads;
    return env;
}

static dp__config net_config(int32_t layers, int32_t hidden, int32_t heads, int32_t inner) {
    dp__config c;
    memset(&c, 0, sizeof c);
    c.layers = layers;
    c.hidden = hidden;
    c.heads = heads;
    c.inner = inner;
    c.vocab = 50;
    c.positions = 40;
    c.types = 2;
    c.classes = 5;
    c.eps = 1e-12f;
    c.init_range = 0.02f;
    return c;
}

/* Weights, ids, types, labels and targets of the geometry in r->config; begin is set. */
static void net_fill(netrun *r, size_t texts) {
    dp_error err;
    size_t   n = r->begin[texts], classes = (size_t)r->config.classes;
    dp__arena_init(&r->arena, &r->env.alloc);
    CHECK(dp__params_init(&r->params, &r->config, &r->arena, &err) == DP_OK);
    r->flat = (dp_real *)calloc(r->params.total, sizeof(dp_real));
    r->grad = (dp_real *)calloc(r->params.total, sizeof(dp_real));
    for (size_t t = 0; t < r->params.count; t++) {
        const dp__tensor *x = &r->params.list[t];
        for (size_t i = 0; i < x->rows * x->cols; i++)
            r->flat[x->offset + i] = (dp_real)net_weight(r, t, (uint32_t)i);
    }
    r->ids = (int32_t *)malloc(n * sizeof *r->ids);
    r->types = (int32_t *)malloc(n * sizeof *r->types);
    r->labels = (int32_t *)malloc(texts * sizeof *r->labels);
    r->targets = (dp_real *)malloc(texts * classes * sizeof *r->targets);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t words = (uint32_t)r->config.vocab - 1;
        r->ids[i] = (int32_t)(1 + net_hash(r->seed * 1000 + 900, i) % words);
        r->types[i] = (int32_t)(net_hash(r->seed * 1000 + 901, i) % (uint32_t)r->config.types);
    }
    for (uint32_t i = 0; i < texts * classes; i++) {
        uint32_t h = net_hash(r->seed * 1000 + 902, i);
        if (i < texts) r->labels[i] = (int32_t)(h % (uint32_t)classes);
        r->targets[i] = r->config.problem == DP_MULTI_LABEL
                            ? (dp_real)(h % 2) : (dp_real)net_uniform(r->seed * 1000 + 902, i);
    }
    r->batch.ids = r->ids;
    r->batch.types = r->types;
    r->batch.begin = r->begin;
    r->batch.texts = r->batch.step_texts = texts;
    CHECK(dp__exec_open(&r->exec, &r->env, &err) == DP_OK);
    CHECK(dp__net_open(&r->net, &r->env.alloc, NULL, &r->config, &r->params, r->flat, NULL,
                       &err) == DP_OK);
    dp__work_init(&r->work, &r->env.alloc, 0);
}

static void net_done(netrun *r) {
    dp__work_close(&r->work);
    dp__net_close(&r->net);
    dp__exec_close(&r->exec);
    dp__arena_free(&r->arena);
    free(r->flat);
    free(r->grad);
    free(r->ids);
    free(r->types);
    free(r->labels);
    free(r->targets);
}

/* A random model with lengths of texts; drop 0: none. */
static void net_make(netrun *r, dp__config config, dp_isa isa, int32_t threads, uint32_t seed,
                     const size_t *lengths, size_t texts) {
    memset(r, 0, sizeof *r);
    r->env = net_env(isa, threads);
    r->config = config;
    r->seed = seed;
    r->scale = 0.25f;
    for (size_t b = 0; b < texts; b++) r->begin[b + 1] = r->begin[b] + lengths[b];
    net_fill(r, texts);
}

/* One forward pass, with backward its loss and gradients too; returns the loss. */
static double net_pass(netrun *r, const dp__net *net, int backward, const dp__dropping *drop) {
    dp__pass s;
    dp_error err;
    double   loss = 0;
    dp_status status = dp__pass_begin(&s, &r->exec, net, &r->batch, &r->work, drop,
                                      backward ? r->grad : NULL, &err);
    CHECK_INT(status, DP_OK);
    if (status != DP_OK) return 0;
    dp__forward(&s);
    if (!backward) return 0;
    loss = dp__pass_loss(&s, r->labels, r->targets);
    dp__backward(&s);
    return loss;
}

/* ---- the oracle's files --------------------------------------------------------------------- */

typedef struct vecfile {
    char  *text, *line; /* line: where the next "tensor" is looked for */
    double *data;       /* next values */
    double  pooled_ours, pooled_count; /* squared error over that of PyTorch, sum and count */
    double  worst;      /* largest |error| over PyTorch's largest */
} vecfile;

static char *net_read_file(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *p = (char *)malloc((size_t)n + 1);
    *bytes = fread(p, 1, (size_t)n, f);
    p[*bytes] = 0;
    fclose(f);
    return p;
}

static double vec_number(const vecfile *v, const char *key) {
    char find[40];
    snprintf(find, sizeof find, "\n%s ", key);
    const char *at = strstr(v->text, find);
    CHECK(at != NULL);
    return at ? strtod(at + strlen(find), NULL) : 0;
}

static void net_sha256(const void *data, size_t bytes, char hex[65]) {
    dp__sha256 ctx;
    uint8_t    out[32];
    dp__sha256_init(&ctx);
    dp__sha256_add(&ctx, data, bytes);
    dp__sha256_end(&ctx, out);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", out[i]);
}

static int vec_open(vecfile *v, const char *name) {
    char   path[256], hash[80] = "", ours[65];
    size_t bytes = 0;
    memset(v, 0, sizeof *v);
    snprintf(path, sizeof path, "tests/vectors/net_%s.vec", name);
    v->text = net_read_file(path, &bytes);
    CHECK(v->text != NULL);
    if (v->text == NULL) return 0;
    char *data = strstr(v->text, "\ndata\n"), *sha = strstr(v->text, "\nsha256 ");
    CHECK(data != NULL && sha != NULL);
    if (data == NULL || sha == NULL) return 0;
    sscanf(sha, " sha256 %64s", hash);
    size_t n = bytes - (size_t)(data + 6 - v->text);
    net_sha256(data + 6, n, ours);
    CHECK(strcmp(hash, ours) == 0);
    v->data = (double *)malloc(n);
    memcpy(v->data, data + 6, n);
    data[1] = 0;
    v->line = strstr(v->text, "\ntensor ");
    return 1;
}

static void vec_setup(const vecfile *v, netrun *r) {
    static const char *const acts[] = {"gelu\n", "gelu_new\n", "relu\n", "silu\n", "tanh\n",
                                       "quick_gelu\n", "mish\n"};
    dp__config *c = &r->config;
    memset(r, 0, sizeof *r);
    r->env = net_env(DP_ISA_AUTO, 2);
    c->layers = (int32_t)vec_number(v, "layers");
    c->hidden = (int32_t)vec_number(v, "hidden");
    c->heads = (int32_t)vec_number(v, "heads");
    c->inner = (int32_t)vec_number(v, "inner");
    c->vocab = (int32_t)vec_number(v, "vocab");
    c->positions = (int32_t)vec_number(v, "positions");
    c->types = (int32_t)vec_number(v, "types");
    c->classes = (int32_t)vec_number(v, "classes");
    c->problem = (int32_t)vec_number(v, "problem");
    c->eps = (float)vec_number(v, "eps");
    r->seed = (uint32_t)vec_number(v, "seed");
    r->scale = (float)vec_number(v, "scale");
    const char *act = strstr(v->text, "\nact ") + 5;
    for (int i = 0; i < DP__ACT_COUNT; i++)
        if (strncmp(act, acts[i], strlen(acts[i])) == 0) c->act = (int32_t)i;
    char  *at = strstr(v->text, "\nlengths ") + 9;
    size_t texts = 0;
    for (; *at != '\n' && texts < 64; texts++)
        r->begin[texts + 1] = r->begin[texts] + strtoul(at, &at, 10);
    net_fill(r, texts);
}

/* The next tensor of the file must be name; compares count values. Each error counts relative
 * to PyTorch float32's own RMS error of the tensor (at least half a unit in the last place of
 * its RMS value), so that tensors of all sizes pool. */
static void vec_compare(vecfile *v, const char *name, const dp_real *got, size_t count) {
    char   found[128] = "";
    size_t n = 0;
    double rms = 0, torch_sum = 0, torch_max = 0, most = 0;
    int    fields = v->line == NULL ? 0 : sscanf(v->line, " tensor %127s %zu %lf %lf %lf", found,
                                                 &n, &rms, &torch_sum, &torch_max);
    CHECK(fields == 5 && strcmp(found, name) == 0 && n == count);
    if (fields != 5 || n != count) {
        printf("        %s in the file, %s here (%zu, %zu)\n", found, name, n, count);
        return;
    }
    size_t touched = 0; /* rows of tables that no token uses are exactly 0 on both sides */
    for (size_t i = 0; i < n; i++) touched += v->data[i] != 0 || got[i] != 0;
    double spread = (double)n / (double)(touched ? touched : 1), least = rms * 0x1p-25;
    double base = (torch_sum / (double)n + least * least) * spread;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - v->data[i]);
        v->pooled_ours += base > 0 ? e * e / base : e > 0 ? 1e9 : 0;
        most = test_larger(most, e);
    }
    v->pooled_count += (double)touched;
    /* maximum: of n Gaussian errors the largest is about sqrt(2 ln n) <= 5.5 times their RMS;
     * twice PyTorch's RMS is allowed, and the same factor for what is not Gaussian. Where rows
     * of one tensor have different sizes, four times PyTorch's own largest error. */
    double limit = 4 * 5.5 * sqrt(base);
    if (limit < 4 * torch_max) limit = 4 * torch_max;
    if (!(most <= limit)) {
        FAIL("the largest error is within its bound");
        printf("        %s: error %g, allowed %g\n", name, most, limit);
    }
    if (limit > 0 && most / limit > v->worst) v->worst = most / limit;
    v->data += n;
    v->line = strstr(v->line + 1, "\ntensor ");
}

static void vec_compare_rows(vecfile *v, const char *name, dp__mat x, size_t rows, size_t cols) {
    dp_real *flat = (dp_real *)malloc(rows * cols * sizeof *flat);
    for (size_t i = 0; i < rows; i++) memcpy(flat + i * cols, x.p + i * x.ld, cols * sizeof *flat);
    vec_compare(v, name, flat, rows * cols);
    free(flat);
}

/* Hidden states of every layer, pooled output, logits, loss, every gradient. With autocast the
 * products are in bfloat16, and the errors are compared with those at that line of another file. */
static void vector_case(const char *name, char **autocast, double *ours, double *count) {
    netrun  r;
    vecfile v;
    char    label[128];
    if (!vec_open(&v, name)) return;
    vec_setup(&v, &r);
    double *data = v.data;
    if (autocast != NULL) v.line = *autocast;
    r.net.bf16 = autocast != NULL;
    r.work.all_tokens = 1;
    dp_real loss = (dp_real)net_pass(&r, &r.net, 1, NULL);
    size_t  n = r.begin[r.batch.texts], width = (size_t)r.config.hidden, texts = r.batch.texts;
    for (int32_t l = 0; l <= r.config.layers; l++) {
        snprintf(label, sizeof label, "hidden%d", (int)l);
        vec_compare_rows(&v, label, l < r.config.layers ? r.work.kept[l].x : r.work.kept[l - 1].y,
                         n, width);
    }
    vec_compare_rows(&v, "pooled", r.work.pooled, texts, width);
    vec_compare(&v, "logits", r.work.logits, texts * (size_t)r.config.classes);
    vec_compare(&v, "loss", &loss, 1);
    for (size_t t = 0; t < r.params.count; t++) {
        const dp__tensor *x = &r.params.list[t];
        snprintf(label, sizeof label, "grad.%s", x->name);
        vec_compare(&v, label, r.grad + x->offset, x->rows * x->cols);
    }
    if (autocast != NULL) *autocast = v.line;
    else CHECK(v.line == NULL);
    printf("    net_%s: RMS error %.2f of PyTorch's, largest %.2f of its bound\n", name,
           sqrt(v.pooled_ours / v.pooled_count), v.worst);
    *ours += v.pooled_ours;
    *count += v.pooled_count;
    free(data);
    free(v.text);
    net_done(&r);
}

static void test_network_vectors(void) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    double ours = 0, count = 0;
    for (size_t i = 0; i < 8; i++) vector_case(names[i], NULL, &ours, &count);
    printf("    pooled over %.0f values: %.3f of PyTorch's RMS error\n", count, sqrt(ours / count));
    CHECK(count >= 10000 && ours <= 4 * count);
}

/* The same with the layers' products in bfloat16, forward and backward, against the errors that
 * PyTorch's autocast makes. It also rounds attention, pooler, classifier and what these give: the
 * RMS error is below its own, and not by more than that explains. */
static void test_network_autocast(void) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    size_t bytes;
    double ours = 0, count = 0;
    char  *text = net_read_file("tests/vectors/net_autocast.vec", &bytes);
    CHECK(text != NULL);
    if (text == NULL) return;
    char *line = strstr(text, "\ntensor ");
    for (size_t i = 0; i < 8; i++) vector_case(names[i], &line, &ours, &count);
    CHECK(line == NULL);
    printf("    pooled over %.0f values: %.3f of autocast's RMS error\n", count,
           sqrt(ours / count));
    CHECK(count >= 10000 && ours <= count && ours > 0.25 * count);
    free(text);
}

/* ---- the table ------------------------------------------------------------------------------ */

/* What a store with one entry of that name is bound to: the number of the one tensor, or count
 * for an ignored name, count + 1 for an unknown one, 9999 for a refusal. */
static size_t params_index(const netrun *r, const char *name) {
    const char *file = "file";
    dp__store   store;
    dp__entry   e;
    dp__files   b;
    char        used = 0;
    size_t      tensor = 9999, found = 0;
    memset(&store, 0, sizeof store);
    memset(&e, 0, sizeof e);
    memset(&b, 0, sizeof b);
    e.name = name;
    store.entries = &e;
    store.count = 1;
    store.names = &file;
    b.params = &r->params;
    b.store = &store;
    for (size_t t = 0; t < r->params.count; t++) {
        const dp__entry *at = NULL;
        CHECK(dp__bind_find(&store, &r->params.list[t], "", &at, &used, NULL) == DP_OK);
        if (at != NULL) tensor = t;
        found += at != NULL;
    }
    CHECK(found <= 1 && used == (found == 1));
    if (dp__bind_rest(&b, &used, NULL) != DP_OK) return 9999;
    CHECK_INT(found + b.ignored + b.unknown, 1);
    return found ? tensor : r->params.count + b.unknown;
}

static void test_network_names(void) {
    static const size_t lengths[] = {3};
    netrun r;
    net_make(&r, net_config(12, 20, 4, 37), DP_ISA_SCALAR, 1, 1, lengths, 1);
    for (size_t t = 0; t < r.params.count; t++) {
        const char *name = r.params.list[t].name;
        CHECK_INT(params_index(&r, name), t);
        if (strncmp(name, "bert.", 5) == 0) CHECK_INT(params_index(&r, name + 5), t);
    }
    size_t norm = dp__layer_tensor(11, DP__NORM2_GAIN);
    CHECK_INT(params_index(&r, "bert.encoder.layer.11.output.LayerNorm.gamma"), norm);
    CHECK_INT(params_index(&r, "encoder.layer.11.output.LayerNorm.beta"), norm + 1);
    CHECK_INT(params_index(&r, "bert.embeddings.LayerNorm.gamma"), DP__EMBED_GAIN);
    CHECK_INT(params_index(&r, "classifier.bias"), r.params.count - 1);
    static const char *const refused[] = {
        "bert.encoder.layer.12.output.LayerNorm.bias", "bert.encoder.layer.99999999999999999999.x",
        "bert.encoder.layer.01.output.LayerNorm.bias", "bert.encoder.layer..output.dense.bias",
        "bert.encoder.layer.-1.output.dense.bias", "bert.encoder.layer.3",
        "encoder.layer.12.output.LayerNorm.bias"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK_INT(params_index(&r, refused[i]), 9999);
    static const char *const unknown[] = {
        "bert.classifier.bias", "bert.encoder.layer.1.LayerNorm.gamma.output.dense.bias",
        "bert.encoder.layer.1.output.dense.beta", "bert.encoder.layer.11.output.dense.biases",
        "bert.embeddings.gamma", "bert.embeddings.LayerNorm.gamna",
        "bert.embeddings.LayerNorn.beta", "bert.bert.embeddings.LayerNorm.bias",
        "embeddings.LayerNorm.weightx", "", "bert."};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        CHECK_INT(params_index(&r, unknown[i]), r.params.count + 1);
    static const char *const ignored[] = {"cls.predictions.bias", "bert.embeddings.position_ids",
                                          "embeddings.position_ids"};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        CHECK_INT(params_index(&r, ignored[i]), r.params.count);
    const dp__tensor *q = &r.params.list[dp__layer_tensor(3, DP__Q_W)];
    CHECK_INT(q[1].offset - q[0].offset, 400); /* one [3C, C] weight, one [3C] bias */
    CHECK_INT(q[2].offset - q[1].offset, 400);
    CHECK_INT(q[4].offset - q[3].offset, 20);
    CHECK_INT(q[5].offset - q[4].offset, 20);
    CHECK_INT(r.params.values, 50 * 20 + 40 * 20 + 2 * 20 + 40 +
              12 * (4 * 420 + 4 * 20 + 37 * 20 + 37 + 37 * 20 + 20) + 420 + 105);
    net_done(&r);
}

/* The drawn weights are a fixed function of the seed, and look like N(0, range). */
static void test_network_draw(void) {
    static const size_t lengths[] = {3};
    netrun  r;
    double  sum = 0, square = 0, fourth = 0;
    char    hash[65];
    net_make(&r, net_config(2, 48, 4, 64), DP_ISA_SCALAR, 1, 1, lengths, 1);
    const dp__tensor *x = &r.params.list[dp__layer_tensor(1, DP__UP_W)];
    size_t  n = x->rows * x->cols;
    float  *v = (float *)malloc(n * sizeof *v);
    dp_real part[7];
    for (size_t i = 0; i < n; i += 7) { /* parts of any size give the same numbers */
        size_t k = n - i < 7 ? n - i : 7;
        dp__params_draw(x, 28, 5, 0.02f, i, k, part);
        for (size_t j = 0; j < k; j++) v[i + j] = (float)part[j];
    }
    for (size_t i = 0; i < n; i++) {
        double z = (double)v[i] / 0.02;
        sum += z;
        square += z * z;
        fourth += z * z * z * z;
    }
    /* standard errors: 1 / sqrt n, sqrt(2 / n), sqrt(96 / n); n = 3,072; four of them */
    CHECK(fabs(sum / (double)n) < 4 / sqrt((double)n));
    CHECK(fabs(square / (double)n - 1) < 4 * sqrt(2 / (double)n));
    CHECK(fabs(fourth / (double)n - 3) < 4 * sqrt(96 / (double)n) + 0.1);
    net_sha256(v, n * sizeof *v, hash);
    CHECK(strcmp(hash, NET_DRAW_DIGEST) == 0);
    if (strcmp(hash, NET_DRAW_DIGEST) != 0) printf("        %s\n", hash);
    dp__params_draw(&r.params.list[DP__EMBED_GAIN], DP__EMBED_GAIN, 5, 0.02f, 0, 1, part);
    CHECK(part[0] == 1);
    dp__params_draw(&r.params.list[DP__EMBED_BIAS], DP__EMBED_BIAS, 5, 0.02f, 0, 1, part);
    CHECK(part[0] == 0);
    free(v);
    net_done(&r);
}

/* ---- one answer for a text ------------------------------------------------------------------ */

static const size_t net_lengths[] = {40, 1, 7, 33, 32, 2, 31, 12, 5};
#define NET_TEXTS (sizeof net_lengths / sizeof *net_lengths)

static dp__config net_odd(void) {
    dp__config c = net_config(2, 36, 3, 50);
    c.hidden_dropout = c.attention_dropout = c.classifier_dropout = 0.1f;
    return c;
}

static int net_same_bits(const dp_real *a, const dp_real *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* How far a is from b, relative to b (root mean squares). */
static double net_apart(const dp_real *a, const dp_real *b, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        error += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(error / norm);
}

/* Each text of r's batch alone has the logits and the pooled vector that it has in the batch. */
static void net_each_alone(netrun *r, const dp__net *net) {
    size_t   texts = r->batch.texts, width = (size_t)r->config.hidden;
    dp_real *logits = (dp_real *)malloc(texts * 5 * sizeof *logits);
    dp_real *pooled = (dp_real *)malloc(texts * width * sizeof *pooled);
    dp__batch batch = r->batch;
    net_pass(r, net, 0, NULL);
    memcpy(logits, r->work.logits, texts * 5 * sizeof *logits);
    for (size_t b = 0; b < texts; b++)
        memcpy(pooled + width * b, r->work.pooled.p + b * r->work.pooled.ld,
               width * sizeof *pooled);
    for (size_t b = 0; b < texts; b++) {
        size_t begin[2] = {0, r->begin[b + 1] - r->begin[b]};
        r->batch.ids = r->ids + r->begin[b];
        r->batch.types = r->types + r->begin[b];
        r->batch.begin = begin;
        r->batch.texts = 1;
        net_pass(r, net, 0, NULL);
        CHECK(net_same_bits(r->work.logits, logits + 5 * b, 5));
        CHECK(net_same_bits(r->work.pooled.p, pooled + width * b, width));
    }
    r->batch = batch;
    free(logits);
    free(pooled);
}

/* Batch, order and neighbours do not change a text's logits and pooled vector. */
static void test_network_alone(void) {
    netrun r;
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    net_each_alone(&r, &r.net);
    net_done(&r);
}

/* Loss, logits and every gradient of a training pass with dropout, as a digest. */
static void net_digest(netrun *r, char hash[65]) {
    static const uint32_t docs[] = {7, 3, 11, 4, 90000, 1, 0, 5, 2};
    dp__sha256   ctx;
    uint8_t      out[32];
    dp__dropping drop = {42, 17, 0.1f, 0.2f, 0.3f};
    r->batch.docs = docs;
    memset(r->grad, 0, r->params.total * sizeof *r->grad);
    double loss = net_pass(r, &r->net, 1, &drop);
    dp__sha256_init(&ctx);
    dp__sha256_add(&ctx, &loss, sizeof loss);
    dp__sha256_add(&ctx, r->work.logits, r->batch.texts * 5 * sizeof(dp_real));
    dp__sha256_add(&ctx, r->grad, r->params.total * sizeof(dp_real));
    dp__sha256_end(&ctx, out);
    for (int i = 0; i < 32; i++) snprintf(hash + 2 * i, 3, "%02x", out[i]);
}

static void test_network_threads(void) {
    static const int32_t counts[] = {1, 2, 3, 5, 8};
    char first[2][65], hash[65];
    for (size_t i = 0; i < 10; i++) {
        netrun r;
        net_make(&r, net_odd(), DP_ISA_AUTO, counts[i / 2], 3, net_lengths, NET_TEXTS);
        r.net.bf16 = i % 2 != 0;
        net_digest(&r, hash);
        if (i < 2) memcpy(first[i % 2], hash, 65);
        CHECK(strcmp(first[i % 2], hash) == 0);
        net_done(&r);
    }
    CHECK(strcmp(first[0], first[1]) != 0);
}

static void test_network_isa(void) {
    char first[2][65] = {"", ""}, hash[65];
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        netrun r;
        if (dp__row_missing((dp_isa)isa, dp__cpu_bits(), dp__os_bits()) != NULL) {
            test_skip("network_isa", "a level that this machine lacks");
            continue;
        }
        net_make(&r, net_odd(), (dp_isa)isa, 2, 3, net_lengths, NET_TEXTS);
        for (int bf16 = 0; bf16 < 2; bf16++) {
            if (bf16 && r.exec.row->b16.tile_mode != NULL) continue; /* another order */
            r.net.bf16 = bf16;
            net_digest(&r, hash);
            if (first[bf16][0] == 0) memcpy(first[bf16], hash, 65);
            CHECK(strcmp(first[bf16], hash) == 0);
        }
        net_done(&r);
    }
}

/* The last layer for [CLS] alone gives the bits of the last layer for all tokens; gradients
 * differ in rounding only. */
static void test_network_last_layer(void) {
    netrun   r;
    dp_real  logits[NET_TEXTS * 5];
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    dp__dropping drop = {42, 17, 0.1f, 0.2f, 0.3f};
    dp_real     *all = (dp_real *)malloc(r.params.total * sizeof *all);
    for (int train = 0; train < 2; train++) {
        r.work.all_tokens = 1;
        memset(r.grad, 0, r.params.total * sizeof *r.grad);
        net_pass(&r, &r.net, train, train ? &drop : NULL);
        memcpy(logits, r.work.logits, sizeof logits);
        memcpy(all, r.grad, r.params.total * sizeof *all);
        dp__work_close(&r.work);
        r.work.all_tokens = 0;
        memset(r.grad, 0, r.params.total * sizeof *r.grad);
        net_pass(&r, &r.net, train, train ? &drop : NULL);
        CHECK(net_same_bits(logits, r.work.logits, NET_TEXTS * 5));
        dp__work_close(&r.work);
    }
    for (size_t t = 0; t < r.params.count; t++) {
        const dp__tensor *x = &r.params.list[t];
        double error = 0, norm = 0;
        for (size_t i = x->offset; i < x->offset + x->rows * x->cols; i++) {
            error += ((double)all[i] - (double)r.grad[i]) * ((double)all[i] - (double)r.grad[i]);
            norm += (double)all[i] * (double)all[i];
        }
        int key_bias = strstr(x->name, "key.bias") != NULL; /* its gradient is 0 in exact numbers */
        CHECK(sqrt(error) <= (key_bias ? 1e-6 : 1e-6 * sqrt(norm)));
    }
    free(all);
    net_done(&r);
}

/* 21 texts at once, or 8, 8 and 5 of them: the same gradient, bit for bit, with dropout; also of
 * products in bfloat16, where each 8 texts begin a pair of tokens anew. */
static void micro_case(dp_isa isa, int bf16) {
    netrun   r;
    size_t   lengths[21], begin[22];
    uint32_t docs[21];
    dp__dropping drop = {1, 2, 0.1f, 0.1f, 0.1f};
    for (size_t b = 0; b < 21; b++) {
        lengths[b] = 1 + b * 7 % 40 + (b % 8 == 3); /* of 8 texts an odd number of tokens */
        docs[b] = (uint32_t)(100 - b);
    }
    net_make(&r, net_odd(), isa, 2, 8, lengths, 21);
    r.net.bf16 = bf16;
    r.batch.docs = docs;
    net_pass(&r, &r.net, 1, &drop);
    CHECK(r.begin[8] % 2 == 1 && (r.begin[16] - r.begin[8]) % 2 == 1);
    dp_real *whole = (dp_real *)malloc(r.params.total * sizeof *whole);
    memcpy(whole, r.grad, r.params.total * sizeof *whole);
    memset(r.grad, 0, r.params.total * sizeof *r.grad);
    int32_t *labels = r.labels;
    for (size_t first = 0; first < 21; first += 8) {
        size_t texts = 21 - first < 8 ? 21 - first : 8;
        for (size_t b = 0; b <= texts; b++) begin[b] = r.begin[first + b] - r.begin[first];
        r.batch.ids = r.ids + r.begin[first];
        r.batch.types = r.types + r.begin[first];
        r.batch.begin = begin;
        r.batch.docs = docs + first;
        r.batch.texts = texts;
        r.batch.first = first;
        r.labels = labels + first;
        net_pass(&r, &r.net, 1, &drop);
    }
    r.labels = labels;
    CHECK(net_same_bits(whole, r.grad, r.params.total));
    free(whole);
    net_done(&r);
}

static void test_network_micro(void) {
    micro_case(DP_ISA_AUTO, 0);
    micro_case(DP_ISA_AUTO, 1);
    micro_case(DP_ISA_SCALAR, 1);
}

/* The chain over tokens is cut after every 8 texts of the step and every 1,024 rows within. */
static void test_network_cuts(void) {
    size_t      begin[20] = {0}, cuts[32];
    dp__batch   batch;
    dp__tokens  rows;
    memset(&batch, 0, sizeof batch);
    memset(&rows, 0, sizeof rows);
    for (size_t b = 0; b < 19; b++) begin[b + 1] = begin[b] + (b < 8 ? 300 : 10);
    batch.begin = begin;
    batch.texts = 19;
    rows.begin = begin;
    rows.cuts = cuts;
    rows.m = begin[19];
    dp__rows_cut(&rows, &batch);
    CHECK_INT(rows.cut_count, 4);
    CHECK_INT(cuts[0], 1024);
    CHECK_INT(cuts[1], 2048);
    CHECK_INT(cuts[2], 2400);
    CHECK_INT(cuts[3], 2480);
    batch.first = 5; /* texts 5, 6, 7 | 8 .. 15 | 16 .. */
    dp__rows_cut(&rows, &batch);
    CHECK_INT(cuts[0], 900);
    CHECK_INT(cuts[1], 900 + 1024);
    CHECK_INT(cuts[2], begin[11]);
    CHECK_INT(rows.cut_count, 3);
}

/* Masks depend on seed, step, site and dataset row, not on the batch. */
static void test_network_dropout(void) {
    static const uint32_t docs[] = {7, 3, 11, 4, 90000, 1, 0, 5, 2};
    netrun       r;
    dp_real      logits[NET_TEXTS * 5];
    dp__dropping drop = {42, 17, 0.1f, 0.2f, 0.3f}, other = drop;
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    r.batch.docs = docs;
    net_pass(&r, &r.net, 1, &drop);
    memcpy(logits, r.work.logits, sizeof logits);
    other.step = 18;
    net_pass(&r, &r.net, 1, &other);
    CHECK(!net_same_bits(logits, r.work.logits, NET_TEXTS * 5));
    other = drop;
    other.seed = 43;
    net_pass(&r, &r.net, 1, &other);
    CHECK(!net_same_bits(logits, r.work.logits, NET_TEXTS * 5));
    for (size_t b = 0; b < NET_TEXTS; b++) {
        size_t begin[2] = {0, net_lengths[b]};
        r.batch.ids = r.ids + r.begin[b];
        r.batch.types = r.types + r.begin[b];
        r.batch.begin = begin;
        r.batch.docs = docs + b;
        r.batch.texts = 1;
        net_pass(&r, &r.net, 1, &drop);
        CHECK(net_same_bits(r.work.logits, logits + 5 * b, 5));
    }
    net_done(&r);
}

/* With dropout on, a step along each tensor's gradient changes the loss as the gradient says: to
 * 2 %, where rounding of the loss (1e-7) is 1e-4 of the change. tests/test_double.c is exact. */
static void test_network_direction(void) {
    netrun       r;
    dp__dropping drop = {42, 17, 0.1f, 0.2f, 0.3f};
    size_t       checked = 0;
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    net_pass(&r, &r.net, 1, &drop);
    dp_real *grad = (dp_real *)malloc(r.params.total * sizeof *grad);
    memcpy(grad, r.grad, r.params.total * sizeof *grad);
    for (size_t t = 0; t < r.params.count; t++) {
        const dp__tensor *x = &r.params.list[t];
        size_t  n = x->rows * x->cols;
        double  norm = 0, loss[2];
        dp_real *p = r.flat + x->offset, *keep = (dp_real *)malloc(n * sizeof *keep);
        const dp_real *g = grad + x->offset;
        memcpy(keep, p, n * sizeof *keep);
        for (size_t i = 0; i < n; i++) norm += (double)g[i] * (double)g[i];
        double h = 1e-3 / norm;
        for (int side = 0; side < 2 && norm > 1e-8; side++) {
            for (size_t i = 0; i < n; i++)
                p[i] = (dp_real)((double)keep[i] + (side ? -h : h) * (double)g[i]);
            loss[side] = net_pass(&r, &r.net, 1, &drop);
        }
        if (norm > 1e-8) {
            CHECK(fabs((loss[0] - loss[1]) / (2 * h * norm) - 1) < 0.02);
            checked++;
        }
        memcpy(p, keep, n * sizeof *keep);
        free(keep);
    }
    CHECK(checked >= r.params.count - 4); /* all but the key biases and what is tiny by chance */
    free(grad);
    net_done(&r);
}

/* ---- working memory ------------------------------------------------------------------------- */

static void test_network_memory(void) {
    netrun    r;
    test_heap heap;
    dp_error  err;
    memset(&heap, 0, sizeof heap);
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    r.work.alloc.alloc = test_heap_alloc;
    r.work.alloc.free = test_heap_free;
    r.work.alloc.ctx = &heap;
    for (int train = 0; train < 2; train++) {
        size_t calls = heap.calls;
        net_pass(&r, &r.net, train, NULL);
        CHECK_INT(heap.calls, calls + 1);
        net_pass(&r, &r.net, train, NULL);
        r.batch.texts = 3;
        net_pass(&r, &r.net, train, NULL);
        r.batch.texts = NET_TEXTS;
        net_pass(&r, &r.net, train, NULL);
        CHECK_INT(heap.calls, calls + 1);
    }
    size_t need = r.work.bytes;
    dp__work_close(&r.work);
    CHECK_INT(heap.live_bytes, 0);
    for (int i = -1; i <= 1; i++) { /* the limit: one byte less, equal, one more */
        r.work.limit = need + (size_t)i;
        dp_status status = dp__work_reserve(&r.work, &r.exec, &r.net, r.begin[NET_TEXTS],
                                            NET_TEXTS, 40, 1, &err);
        CHECK_INT(status, i < 0 ? DP_E_LIMIT : DP_OK);
        dp__work_close(&r.work);
    }
    r.work.limit = 0;
    heap.fail_at = heap.calls + 1;
    CHECK_INT(dp__work_reserve(&r.work, &r.exec, &r.net, 10, 2, 5, 1, &err), DP_E_MEMORY);
    CHECK(r.work.memory == NULL && heap.live_bytes == 0);
    heap.fail_at = 0;
    net_pass(&r, &r.net, 1, NULL); /* usable afterwards */
    for (size_t part = 2; part <= 300; part += 298)
        CHECK_INT(dp__work_reserve(&r.work, &r.exec, &r.net, SIZE_MAX / part, 2, 5, 1, &err),
                  DP_E_MEMORY);
    dp__work_close(&r.work);
    CHECK_INT(heap.live_bytes, 0);
    net_done(&r);
}

/* ---- packed forms --------------------------------------------------------------------------- */

/* A source that rounds the Linears (and tables) of a flat buffer to INT8, as compressed-tensors
 * does: with codes of -128. */
typedef struct quant_source {
    const dp__params *params;
    const dp_real    *flat;
    int               tables;
} quant_source;

static int quant_is_int8(void *ctx, size_t t) {
    const quant_source *s = (const quant_source *)ctx;
    const dp__tensor   *x = &s->params->list[t];
    if (t <= DP__TYPES) return s->tables;
    return x->dims == 2 && strstr(x->name, "classifier") == NULL;
}

static dp_status quant_values(void *ctx, size_t t, size_t row, size_t rows, void *to,
                              dp_real *scale, dp_error *err) {
    const quant_source *s = (const quant_source *)ctx;
    const dp__tensor   *x = &s->params->list[t];
    const dp_real      *from = s->flat + x->offset + row * x->cols;
    (void)err;
    if (scale == NULL) memcpy(to, from, rows * x->cols * sizeof *from);
    for (size_t i = 0; i < rows && scale != NULL; i++) {
        const dp_real *w = from + i * x->cols;
        dp_real        most = 0;
        for (size_t p = 0; p < x->cols; p++)
            if (most < (dp_real)fabs((double)w[p])) most = (dp_real)fabs((double)w[p]);
        scale[i] = most > 0 ? most / (dp_real)127.5 : 1;
        for (size_t p = 0; p < x->cols; p++) {
            double q = ceil((double)(w[p] / scale[i]) - 0.501);
            ((int8_t *)to)[i * x->cols + p] = (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
        }
    }
    return DP_OK;
}

/* The packed net gives the bits of the flat one, and gives every weight back. */
static void test_network_packed(void) {
    netrun   r;
    dp__net  net;
    dp_error err;
    dp_real  logits[NET_TEXTS * 5];
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    net_pass(&r, &r.net, 0, NULL);
    memcpy(logits, r.work.logits, sizeof logits);
    dp__source source = dp__source_net(&r.net);
    dp_status status = dp__net_open(&net, &r.env.alloc, r.exec.row, &r.config, &r.params, NULL,
                                    &source, &err);
    CHECK_INT(status, DP_OK);
    net_pass(&r, &net, 0, NULL);
    CHECK(net_same_bits(logits, r.work.logits, NET_TEXTS * 5));
    dp__source back = dp__source_net(&net);
    dp_real   *again = (dp_real *)malloc(r.params.total * sizeof *again);
    CHECK(dp__flat_fill(&r.params, &back, again, &err) == DP_OK);
    CHECK(net_same_bits(again, r.flat, r.params.total));
    dp__source bound = dp__source_net(&r.net);
    memset(again, 0, r.params.total * sizeof *again);
    CHECK(dp__flat_fill(&r.params, &bound, again, &err) == DP_OK);
    CHECK(net_same_bits(again, r.flat, r.params.total));
    free(again);
    dp__net_close(&net);
    net_done(&r);
}

/* INT8 Linears and tables: the same bits on every row, thread count and batch; close to the
 * float model; the integers come back as they went in. */
static void test_network_int8(void) {
    dp_real first[2][NET_TEXTS * 5];
    int     seen = 0;
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        netrun       r;
        dp_error     err;
        quant_source q;
        if (dp__row_missing((dp_isa)isa, dp__cpu_bits(), dp__os_bits()) != NULL) continue;
        net_make(&r, net_odd(), (dp_isa)isa, isa == DP_ISA_SCALAR ? 1 : 3, 3, net_lengths,
                 NET_TEXTS);
        net_pass(&r, &r.net, 0, NULL);
        dp_real plain[NET_TEXTS * 5];
        memcpy(plain, r.work.logits, sizeof plain);
        dp__work_close(&r.work); /* an INT8 net needs other buffers */
        for (q.tables = 0; q.tables < 2; q.tables++) {
            dp__net net;
            q.params = &r.params;
            q.flat = r.flat;
            dp__source source = {&q, quant_is_int8, quant_values, 0};
            CHECK_INT(dp__net_open(&net, &r.env.alloc, r.exec.row, &r.config, &r.params, NULL,
                                   &source, &err), DP_OK);
            CHECK_INT(net.int8_linears, 13);
            CHECK_INT(net.int8_tables, q.tables ? 3 : 0);
            net_pass(&r, &net, 0, NULL);
            if (!seen) memcpy(first[q.tables], r.work.logits, sizeof plain);
            CHECK(net_same_bits(first[q.tables], r.work.logits, NET_TEXTS * 5));
            double apart = net_apart(r.work.logits, plain, NET_TEXTS * 5);
            CHECK(apart > 0 && apart < 0.05);
            r.work.attention32 = 1; /* the same with attention in float32 */
            dp__work_close(&r.work);
            net_pass(&r, &net, 0, NULL);
            apart = net_apart(r.work.logits, first[q.tables], NET_TEXTS * 5);
            CHECK(apart > 0 && apart < 0.02);
            r.work.attention32 = 0;
            dp__work_close(&r.work);
            dp__source back = dp__source_net(&net);
            for (size_t t = 0; t < r.params.count; t++) {
                int8_t  a[50], b[50];
                dp_real sa, sb;
                const dp__tensor *x = &r.params.list[t];
                CHECK_INT(back.is_int8(back.ctx, t), quant_is_int8(&q, t));
                for (size_t i = 0; i < x->rows && quant_is_int8(&q, t); i++) {
                    quant_values(&q, t, i, 1, a, &sa, NULL);
                    back.read(back.ctx, t, i, 1, b, &sb, NULL);
                    CHECK(memcmp(a, b, x->cols) == 0 && net_same_bits(&sa, &sb, 1));
                }
            }
            dp__net_close(&net);
        }
        seen = 1;
        net_done(&r);
    }
}

/* ---- BF16 ----------------------------------------------------------------------------------- */

/* The Linears of r's layers in bfloat16, for r's kernel row. */
static void bf16_net(netrun *r, dp__net *net) {
    dp_error   err;
    dp__source source = dp__source_net(&r->net);
    source.bf16 = 1;
    CHECK_INT(dp__net_open(net, &r->env.alloc, r->exec.row, &r->config, &r->params, NULL,
                           &source, &err), DP_OK);
    CHECK_INT(net->bf16_linears, r->config.layers * 6);
}

/* The same bits on every row, thread count and batch; the weights come back rounded. */
static void test_network_bf16(void) {
    dp_real first[NET_TEXTS * 5];
    int     seen = 0;
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        netrun  r;
        dp__net net;
        if (dp__row_missing((dp_isa)isa, dp__cpu_bits(), dp__os_bits()) != NULL) continue;
        net_make(&r, net_odd(), (dp_isa)isa, isa == DP_ISA_SCALAR ? 1 : 3, 3, net_lengths,
                 NET_TEXTS);
        bf16_net(&r, &net);
        net_pass(&r, &net, 0, NULL);
        CHECK_INT(r.work.form, DP__B_BF16);
        if (!seen || r.exec.row->b16.tile_mode != NULL) /* tiles add in another order */
            memcpy(first, r.work.logits, sizeof first);
        CHECK(net_same_bits(first, r.work.logits, NET_TEXTS * 5));
        r.work.attention32 = 1; /* the same with attention in float32: a little apart */
        dp__work_close(&r.work);
        net_pass(&r, &net, 0, NULL);
        CHECK_INT(r.work.form, DP__B_PACKED);
        double apart = net_apart(r.work.logits, first, NET_TEXTS * 5);
        CHECK(apart > 0 && apart < 0.02);
        dp__source back = dp__source_net(&net);
        for (size_t t = 0; t < r.params.count; t++) {
            const dp__tensor *x = &r.params.list[t];
            int linear = x->dims == 2 && x->part > DP__TYPES && x->part < DP__POOL_W;
            for (size_t i = 0; i < x->rows; i++) {
                dp_real row[64];
                CHECK(back.read(back.ctx, t, i, 1, row, NULL, NULL) == DP_OK);
                for (size_t j = 0; j < x->cols; j++) {
                    float    w = (float)r.flat[x->offset + i * x->cols + j];
                    uint32_t want = linear ? (uint32_t)dp__bf16(w) << 16 : dp__f32_bits(w);
                    CHECK_INT(dp__f32_bits((float)row[j]), want);
                }
            }
        }
        dp__net_close(&net);
        net_done(&r);
        seen = 1;
    }
}

/* Heads of 64 columns and more keys than a panel has, as BERT-base has them: the same bits on every
 * row for a training pass and for logits in FP32, BF16 and INT8. */
static void test_network_heads(void) {
    static const size_t lengths[] = {64, 100};
    dp_real first[2][10];
    char    training[65] = "", hash[65];
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        netrun       r;
        dp_error     err;
        dp__net      net[2];
        dp__config   config = net_config(1, 128, 2, 32);
        quant_source q;
        if (dp__row_missing((dp_isa)isa, dp__cpu_bits(), dp__os_bits()) != NULL) continue;
        config.positions = 128;
        net_make(&r, config, (dp_isa)isa, 2, 3, lengths, 2);
        net_digest(&r, hash);
        if (training[0] == 0) memcpy(training, hash, sizeof hash);
        CHECK(strcmp(training, hash) == 0);
        bf16_net(&r, &net[0]);
        q.params = &r.params;
        q.flat = r.flat;
        q.tables = 0;
        dp__source source = {&q, quant_is_int8, quant_values, 0};
        CHECK_INT(dp__net_open(&net[1], &r.env.alloc, r.exec.row, &r.config, &r.params, NULL,
                               &source, &err), DP_OK);
        for (int i = 0; i < 2; i++) {
            dp__work_close(&r.work);
            net_pass(&r, &net[i], 0, NULL);
            CHECK_INT(r.work.form, i == 0 ? DP__B_BF16 : DP__B_INT8);
            int own = i == 0 && r.exec.row->b16.tile_mode != NULL; /* tiles add in another order */
            if (isa == DP_ISA_SCALAR || own) memcpy(first[i], r.work.logits, sizeof first[i]);
            CHECK(net_same_bits(first[i], r.work.logits, 10));
            dp__net_close(&net[i]);
        }
        net_done(&r);
    }
}

/* Largest error of c [m, n] against sums in double over a(i, p) b(p, j), rounded to bfloat16 or
 * not, in units of what k roundings of the sum to 24 bits allow. */
static double bf16_product_error(dp__mat c, dp__mat a, size_t a_k, dp__mat b, size_t b_col,
                                 size_t m, size_t n, size_t k, int rounded) {
    double worst = 0;
    size_t a_row = a_k == 1 ? a.ld : 1, b_k = b_col == 1 ? b.ld : 1;
    for (size_t i = 0; i < m * n; i++) {
        double sum = 0, size = 0;
        for (size_t p = 0; p < k; p++) {
            float x = (float)a.p[i / n * a_row + p * a_k];
            float y = (float)b.p[i % n * b_col + p * b_k];
            if (rounded) x = dp__f32_from_bits((uint32_t)dp__bf16(x) << 16);
            if (rounded) y = dp__f32_from_bits((uint32_t)dp__bf16(y) << 16);
            sum += (double)x * (double)y;
            size += fabs((double)x * (double)y);
        }
        double e = fabs((double)c.p[i / n * c.ld + i % n] - sum) / (size * (double)k * 0x1p-24);
        worst = test_larger(worst, e);
    }
    return worst;
}

/* Each of the three products of a Linear is the one of rounded operands, and not of others; those
 * of the classifier are not rounded. */
static void test_network_bf16_products(void) {
    netrun   r;
    dp_error err;
    dp__pass s;
    net_make(&r, net_odd(), DP_ISA_AUTO, 2, 3, net_lengths, NET_TEXTS);
    r.net.bf16 = 1;
    net_pass(&r, &r.net, 1, NULL);
    CHECK_INT(dp__pass_begin(&s, &r.exec, &r.net, &r.batch, &r.work, NULL, r.grad, &err), DP_OK);
    size_t tensors[] = {dp__layer_tensor(0, DP__MIX_W), dp__tail_tensor(&r.params, DP__CLASS_W)};
    for (int i = 0; i < 2; i++) {
        const dp__tensor *x = &r.params.list[tensors[i]];
        size_t  m = r.work.all.m, out = x->rows, in = x->cols, bias = dp__bias_of(&s, tensors[i]);
        dp__mat a = r.work.kept[0].x, dy = r.work.kept[0].mixed, y = r.work.d1, dx = r.work.d2;
        dp__mat w = {r.flat + x->offset, in}, dw = {r.grad + x->offset, in};
        memset(r.flat + r.params.list[bias].offset, 0, out * sizeof(dp_real));
        memset(dw.p, 0, out * in * sizeof(dp_real));
        dp__linear_forward(&s, tensors[i], m, y, a);
        dp__linear_input_grad(&s, tensors[i], m, dx, dy, dp__no_mat);
        s.work->all.cut_count = 0;
        dp__linear_weight_grad(&s, tensors[i], &r.work.all, dy, a);
        for (int rounded = 0; rounded < 2; rounded++) {
            int right = rounded == (i == 0);
            CHECK((bf16_product_error(y, a, 1, w, in, m, out, in, rounded) < 1) == right);
            CHECK((bf16_product_error(dx, dy, 1, w, 1, m, in, out, rounded) < 1) == right);
            CHECK((bf16_product_error(dw, dy, dy.ld, a, 1, out, in, m, rounded) < 1) == right);
        }
    }
    net_done(&r);
}

/* Texts of 1 to 512 tokens in one batch have the bits that each has alone, on every row the same;
 * an odd width of a head keeps attention in float32. */
static void test_network_bf16_lengths(void) {
    static const size_t lengths[] = {512, 1, 2, 31, 32, 33, 64, 65, 129, 300, 511};
    enum { TEXTS = sizeof lengths / sizeof *lengths };
    dp_real first[TEXTS * 5];
    int     seen = 0;
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        netrun     r;
        dp__net    net;
        dp__config config = net_config(2, 20, 2, 48);
        if (dp__row_missing((dp_isa)isa, dp__cpu_bits(), dp__os_bits()) != NULL) continue;
        config.positions = 512;
        net_make(&r, config, (dp_isa)isa, 2, 3, lengths, TEXTS);
        bf16_net(&r, &net);
        if (isa != DP_ISA_SCALAR) net_each_alone(&r, &net);
        dp__work_close(&r.work);
        net_pass(&r, &net, 0, NULL);
        if (!seen || r.exec.row->b16.tile_mode != NULL)
            memcpy(first, r.work.logits, sizeof first);
        CHECK(net_same_bits(first, r.work.logits, TEXTS * 5));
        dp__net_close(&net);
        net_done(&r);
        seen = 1;
    }
    netrun  odd;
    dp__net net;
    net_make(&odd, net_config(1, 15, 3, 20), DP_ISA_AUTO, 1, 3, net_lengths, 1);
    bf16_net(&odd, &net);
    net_pass(&odd, &net, 0, NULL);
    CHECK_INT(odd.work.form, DP__B_PACKED);
    dp__net_close(&net);
    net_done(&odd);
}

/* Sum of squares of x[i, j] dx[i, j]; then dx += residual. */
static double bf16_term(dp__mat dx, dp__mat x, size_t rows, size_t cols, dp__mat residual) {
    double sum = 0;
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) {
            double e = (double)dx.p[i * dx.ld + j] * (double)x.p[i * x.ld + j];
            sum += e * e;
            if (residual.p) dx.p[i * dx.ld + j] += residual.p[i * residual.ld + j];
        }
    }
    return sum;
}

/* dp__layer_backward without dropout, with the sum of (x dx)^2 over the inputs of its Linears and
 * over queries, keys and values;
 * zero [N, C] stands for residuals until the term is taken. */
static double bf16_layer(const dp__pass *s, int32_t layer, dp__mat zero) {
    const dp__tokens *rows = dp__layer_rows(s, layer);
    const dp__work   *w = s->work;
    const dp__kept   *k = &w->kept[layer];
    size_t            t = dp__layer_tensor(layer, 0), inner = (size_t)s->net->config->inner;
    size_t            m = rows->m, width = dp__width(s);
    int               act = (int)s->net->config->act;
    double            sum = 0;
    dp__norm_backward(s, t + DP__NORM2_GAIN, rows, w->d1, w->d0, k->sum2, k->stats2);
    dp__vec_plain(s->exec, DP__VEC_ACT + act, w->act, k->pre, dp__no_mat, m, inner);
    dp__linear_residual_backward(s, t + DP__DOWN_W, rows, w->dpre, w->d1, w->d2, w->act, 0);
    sum += bf16_term(w->dpre, w->act, m, inner, dp__no_mat);
    dp__vec_plain(s->exec, DP__VEC_ACT_GRAD + act, w->dpre, w->dpre, k->pre, m, inner);
    dp__linear_weight_grad(s, t + DP__UP_W, rows, w->dpre, k->middle);
    dp__linear_input_grad(s, t + DP__UP_W, m, w->d0, w->dpre, zero);
    sum += bf16_term(w->d0, k->middle, m, width, w->d1);
    dp__norm_backward(s, t + DP__NORM1_GAIN, rows, w->d1, w->d0, k->sum1, k->stats1);
    dp__linear_residual_backward(s, t + DP__MIX_W, rows, w->d0, w->d1, w->d2, k->mixed, 0);
    sum += bf16_term(w->d0, k->mixed, m, width, dp__no_mat);
    dp__attention_run(s, layer, w->d0);
    sum += bf16_term(w->dqkv, k->qkv, m, 3 * width, dp__no_mat);
    dp__queries_backward(s, layer, rows, w->d0, zero, w->d2);
    return sum + bf16_term(w->d0, k->x, m, width, w->d1);
}

/* Variance of the logit's error, to first order: a rounding of x to bfloat16 moves the logit by
 * x dx e, of w by w dw e, |e| <= 2^-8, taken as independent and uniform: of variance 2^-16 / 3. */
static double bf16_variance(netrun *r, size_t cls, dp__mat zero) {
    dp__pass s;
    dp_error err;
    double   sum = 0;
    memset(r->grad, 0, r->params.total * sizeof *r->grad);
    CHECK_INT(dp__pass_begin(&s, &r->exec, &r->net, &r->batch, &r->work, NULL, r->grad, &err),
              DP_OK);
    dp__forward(&s);
    memset(r->work.dlogits, 0, 5 * sizeof(dp_real));
    r->work.dlogits[cls] = 1;
    dp__head_backward(&s, r->work.d2);
    memset(r->work.d0.p, 0, r->work.all.m * r->work.d0.ld * sizeof(dp_real));
    dp__give_first(&s, r->work.d0, r->work.d2);
    for (int32_t layer = r->config.layers - 1; layer >= 0; layer--)
        sum += bf16_layer(&s, layer, zero);
    for (size_t t = 0; t < r->params.count; t++) {
        const dp__tensor *x = &r->params.list[t];
        dp__mat           w = {r->flat + x->offset, x->cols}, dw = {r->grad + x->offset, x->cols};
        if (x->dims == 2 && x->part > DP__TYPES && x->part < DP__POOL_W)
            sum += bf16_term(dw, w, x->rows, x->cols, dp__no_mat);
    }
    return sum * 0x1p-16 / 3;
}

/* The logits of FP32 (which are PyTorch's, network_vectors) and of BF16 differ as roundings of
 * inputs and weights explain it: never by more than five standard deviations, in the mean by a
 * half to one (the bound on e is reached at powers of 2 only: 0.7 is expected). */
static void test_network_bf16_error(void) {
    static const size_t length[] = {13};
    double  worst = 0, sum = 0, count = 0;
    dp_real room[13 * 128] = {0};
    for (uint32_t seed = 1; seed <= 12; seed++) {
        netrun  r;
        dp__net net;
        dp_real plain[5], sigma[5];
        net_make(&r, net_config(3, 64, 4, 96), DP_ISA_AUTO, 1, seed, length, 1);
        r.work.all_tokens = 1;
        dp__mat zero = {room, 128};
        for (size_t c = 0; c < 5; c++) sigma[c] = (dp_real)sqrt(bf16_variance(&r, c, zero));
        memcpy(plain, r.work.logits, sizeof plain);
        dp__work_close(&r.work);
        bf16_net(&r, &net);
        net_pass(&r, &net, 0, NULL);
        for (size_t c = 0; c < 5; c++) {
            double e = fabs((double)r.work.logits[c] - (double)plain[c]) / (double)sigma[c];
            sum += e * e;
            count++;
            worst = test_larger(worst, e);
        }
        dp__net_close(&net);
        net_done(&r);
    }
    printf("     bf16 logits: RMS error %.2f of what roundings explain, largest %.2f\n",
           sqrt(sum / count), worst);
    CHECK(worst < 5 && sum / count < 1 && sum / count > 0.25);
}

/* ---- loading -------------------------------------------------------------------------------- */

typedef struct netfiles { /* a model directory opened as far as [F1] goes */
    dp_env          env;
    dp__arena       arena;
    void           *dir;
    dp__store       store;
    dp__config      config;
    dp__params      params;
    dp__files       files;
} netfiles;

static dp_status netfiles_open(netfiles *f, const char *path, const dp_env *env, size_t new_from,
                               int replace, dp_error *err) {
    char  *text;
    size_t bytes;
    memset(f, 0, sizeof *f);
    dp_status status = dp__env_init(env, &f->env, err);
    dp__arena_init(&f->arena, &f->env.alloc);
    if (status == DP_OK) status = f->env.io.open_dir(f->env.io.ctx, path, 0, &f->dir);
    if (status == DP_OK)
        status = dp__file_read(&f->env, f->dir, "config.json", 1 << 20, &f->arena, &text, &bytes,
                               err);
    if (status == DP_OK)
        status = dp__config_parse(text, bytes, &f->arena, "config.json", &f->config, err);
    if (status == DP_OK) status = dp__store_open(&f->store, &f->env, f->dir, &f->arena, err);
    if (status == DP_OK) status = dp__params_init(&f->params, &f->config, &f->arena, err);
    f->files.params = &f->params;
    f->files.store = &f->store;
    f->files.range = f->config.init_range;
    if (status == DP_OK)
        status = dp__bind(&f->files, new_from ? new_from : f->params.count, replace, &f->arena,
                          err);
    return status;
}

static void netfiles_close(netfiles *f) {
    dp__store_close(&f->store);
    if (f->dir != NULL) f->env.io.close_dir(f->env.io.ctx, f->dir);
    dp__arena_free(&f->arena);
}

/* Half precision files of two spellings, read into packed form and into a flat buffer. */
static void test_network_disk(void) {
    static const char *const names[] = {"f16", "bf16"};
    for (size_t i = 0; i < 2; i++) {
        netfiles f;
        netrun   r;
        vecfile  v;
        dp_error err;
        char     path[64];
        dp__net  net;
        snprintf(path, sizeof path, "tests/vectors/net_%s", names[i]);
        dp_status status = netfiles_open(&f, path, NULL, 0, 0, &err);
        CHECK_INT(status, DP_OK);
        if (status != DP_OK) {
            printf("        %s\n", err.text);
            continue;
        }
        CHECK_INT(f.files.missing, 0);
        CHECK_INT(f.files.ignored, 2);
        vec_open(&v, names[i]);
        double *data = v.data;
        vec_setup(&v, &r);
        dp__source source = dp__source_files(&f.files);
        CHECK_INT(dp__net_open(&net, &f.env.alloc, NULL, &f.config, &f.params, NULL, &source,
                               &err), DP_OK);
        net_pass(&r, &net, 0, NULL);
        vec_compare(&v, "logits", r.work.logits, r.batch.texts * 5);
        CHECK(dp__flat_fill(&r.params, &source, r.flat, &err) == DP_OK);
        net_pass(&r, &net, 0, NULL);
        v.data = data;
        v.line = strstr(v.text, "\ntensor ");
        vec_compare(&v, "logits", r.work.logits, r.batch.texts * 5);
        dp__net_close(&net);
        free(data);
        free(v.text);
        net_done(&r);
        netfiles_close(&f);
    }
}

/* A directory with config.json and one safetensors file, written from a list. */
static void net_write_dir(const char *path, const char *config, const char *const *names,
                     const char *const *types, const int64_t (*shapes)[2], size_t count,
                     const float *values) {
    char   header[32768], name[256];
    size_t at = 0, offset = 0, n = 0;
    at += (size_t)snprintf(header, sizeof header, "{");
    for (size_t i = 0; i < count; i++) {
        size_t size = (size_t)(shapes[i][0] * (shapes[i][1] ? shapes[i][1] : 1));
        size_t item = types[i][1] == '8' ? 1 : strcmp(types[i], "F32") == 0 ? 4 : 2;
        at += (size_t)snprintf(header + at, sizeof header - at,
                               "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d", i ? "," : "", names[i],
                               types[i], (int)shapes[i][0]);
        if (shapes[i][1])
            at += (size_t)snprintf(header + at, sizeof header - at, ",%d", (int)shapes[i][1]);
        at += (size_t)snprintf(header + at, sizeof header - at, "],\"data_offsets\":[%d,%d]}",
                               (int)offset, (int)(offset + size * item));
        offset += size * item;
        n += size;
    }
    at += (size_t)snprintf(header + at, sizeof header - at, "}");
    snprintf(name, sizeof name, "%s/model.safetensors", path);
    FILE    *f = fopen(name, "wb");
    uint64_t length = at;
    fwrite(&length, 8, 1, f);
    fwrite(header, 1, at, f);
    (void)n;
    for (size_t i = 0, from = 0; i < count; i++) {
        size_t size = (size_t)(shapes[i][0] * (shapes[i][1] ? shapes[i][1] : 1));
        for (size_t j = 0; j < size; j++, from++) {
            int8_t   q = (int8_t)(isfinite(values[from]) ? values[from] * 127 : 0);
            uint16_t h = (uint16_t)(dp__f32_bits(values[from]) >> 16); /* bfloat16, cut off */
            if (types[i][1] == '8') fwrite(&q, 1, 1, f);
            else if (strcmp(types[i], "F32") == 0) fwrite(&values[from], 4, 1, f);
            else fwrite(&h, 2, 1, f);
        }
    }
    fclose(f);
    snprintf(name, sizeof name, "%s/config.json", path);
    f = fopen(name, "wb");
    fwrite(config, 1, strlen(config), f);
    fclose(f);
}

#define BIND_MOST 32
typedef struct bindcase { /* the tensors of a one-layer model, to be spoilt */
    const char *names[BIND_MOST], *types[BIND_MOST];
    int64_t     shapes[BIND_MOST][2];
    float       values[2048];
    size_t      count;
    netrun      r;
} bindcase;

static const char bind_config[] =
    "{\"model_type\":\"bert\",\"vocab_size\":7,\"hidden_size\":4,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"intermediate_size\":6,\"max_position_embeddings\":5,"
    "\"type_vocab_size\":2}";

static void bind_make(bindcase *c) {
    static const size_t lengths[] = {3};
    dp__config config = net_config(1, 4, 2, 6);
    config.vocab = 7;
    config.positions = 5;
    config.classes = 2;
    memset(c, 0, sizeof *c);
    net_make(&c->r, config, DP_ISA_SCALAR, 1, 1, lengths, 1);
    for (size_t t = 0; t < c->r.params.count; t++) {
        const dp__tensor *x = &c->r.params.list[t];
        c->names[t] = x->name;
        c->types[t] = "F32";
        c->shapes[t][0] = (int64_t)x->rows;
        c->shapes[t][1] = x->dims == 2 ? (int64_t)x->cols : 0;
    }
    c->count = c->r.params.count;
    for (size_t i = 0; i < 2048; i++) c->values[i] = net_uniform(1, (uint32_t)i) * 0.9f;
}

/* What opening and packing the spoilt directory gives; text must contain what. */
static void bind_expect(bindcase *c, size_t new_from, dp_status expect, const char *what) {
    char     dir[64], name[96];
    netfiles f;
    dp__net  net;
    dp_error err;
    const int64_t(*shapes)[2] = (const int64_t(*)[2])c->shapes;
    memset(&err, 0, sizeof err);
    snprintf(dir, sizeof dir, "/tmp/dpnetXXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    net_write_dir(dir, bind_config, c->names, c->types, shapes, c->count, c->values);
    dp_status status = netfiles_open(&f, dir, NULL, new_from, 0, &err);
    if (status == DP_OK) {
        dp__source source = dp__source_files(&f.files);
        status = dp__net_open(&net, &f.env.alloc, NULL, &f.config, &f.params, NULL, &source, &err);
        if (status == DP_OK) dp__net_close(&net);
    }
    CHECK_INT(status, expect);
    CHECK(strstr(err.text, what) != NULL);
    if (strstr(err.text, what) == NULL) printf("        %s\n", err.text);
    netfiles_close(&f);
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    remove(name);
    snprintf(name, sizeof name, "%s/config.json", dir);
    remove(name);
    remove(dir);
}

static void test_network_bind(void) {
    bindcase c;
    size_t   q = dp__layer_tensor(0, DP__Q_W);
    bind_make(&c);
    bind_expect(&c, 0, DP_OK, "");
    c.names[3] = "bert.embeddings.LayerNorm.gammas"; /* a name that the table has not */
    bind_expect(&c, 0, DP_E_FORMAT, "missing: 'bert.embeddings.LayerNorm.weight'");
    c.names[3] = "bert.encoder.layer.1.output.dense.bias"; /* a layer too many */
    bind_expect(&c, 0, DP_E_FORMAT, "bert.encoder.layer.1.output.dense.bias");
    c.names[3] = "embeddings.word_embeddings.weight"; /* twice, in two spellings */
    c.shapes[3][0] = 7;
    c.shapes[3][1] = 4;
    bind_expect(&c, 0, DP_E_FORMAT, "two tensors");
    net_done(&c.r);
    bind_make(&c);
    c.names[c.count] = "qa_outputs.weight"; /* a head of another task is left aside */
    c.types[c.count] = "F32";
    c.shapes[c.count++][0] = 3;
    bind_expect(&c, 0, DP_OK, "");
    net_done(&c.r);
    bind_make(&c);
    c.names[3] = "bert.embeddings.LayerNorm.gamma"; /* old spelling */
    bind_expect(&c, 0, DP_OK, "");
    c.shapes[q][0] = 2; /* [2, 8] has as many numbers */
    c.shapes[q][1] = 8;
    bind_expect(&c, 0, DP_E_FORMAT, "query.weight");
    c.shapes[q][0] = 16;
    c.shapes[q][1] = 0;
    bind_expect(&c, 0, DP_E_FORMAT, "query.weight");
    net_done(&c.r);
    bind_make(&c);
    c.types[q] = "U16";
    bind_expect(&c, 0, DP_E_UNSUPPORTED, "query.weight");
    c.types[q] = "I8"; /* without its scale */
    bind_expect(&c, 0, DP_E_FORMAT, "without scales");
    for (int part = 0; part < 3; part++) { /* one, two, all of q, k, v */
        static const char *const scales[] = {
            "bert.encoder.layer.0.attention.self.query.weight_scale",
            "bert.encoder.layer.0.attention.self.key.weight_scale",
            "bert.encoder.layer.0.attention.self.value.weight_scale"};
        c.types[q + (size_t)part] = "I8";
        c.names[c.count] = scales[part];
        c.types[c.count] = "F32";
        c.shapes[c.count][0] = 4;
        c.shapes[c.count++][1] = 1;
        bind_expect(&c, 0, part == 1 ? DP_E_UNSUPPORTED : DP_OK,
                    part == 1 ? "or none: 'bert.encoder.layer.0.attention.self.value.weight'" : "");
    }
    c.values[28 + 20 + 8 + 4 + 4 + 3] = -1.01f; /* -128, in the query weight */
    bind_expect(&c, 0, DP_OK, "");
    c.shapes[c.count - 1][0] = 3;
    bind_expect(&c, 0, DP_E_UNSUPPORTED, "scale");
    c.shapes[c.count - 1][0] = 4;
    for (int i = 0; i < 2; i++) {
        c.types[q + 2] = i ? "F32" : "U8";
        bind_expect(&c, 0, DP_E_FORMAT, "have a scale: 'bert.encoder.layer.0.attention.self.value.w"
                    "eight'");
    }
    c.names[q + 2] = "unknown.weight";
    bind_expect(&c, 0, DP_E_FORMAT, "have a scale: 'bert.encoder.layer.0.attention.self.value.w"
                "eight_scale'");
    net_done(&c.r);
    bind_make(&c);
    c.values[28 + 20 + 8 + 4 + 4 + 3] = NAN; /* in the query weight */
    bind_expect(&c, 0, DP_E_FORMAT, "query.weight");
    c.values[28 + 20 + 8 + 4 + 4 + 3] = -INFINITY;
    bind_expect(&c, 0, DP_E_FORMAT, "query.weight");
    net_done(&c.r);
    bind_make(&c);
    c.count -= 2; /* no classifier */
    bind_expect(&c, 0, DP_E_FORMAT, "classifier.weight");
    bind_expect(&c, dp__tail_tensor(&c.r.params, DP__POOL_W), DP_OK, "");
    c.count -= 2; /* no pooler either */
    bind_expect(&c, dp__tail_tensor(&c.r.params, DP__POOL_W), DP_OK, "");
    c.count -= 1;
    bind_expect(&c, dp__tail_tensor(&c.r.params, DP__POOL_W), DP_E_FORMAT, "output.LayerNorm.bias");
    net_done(&c.r);
}

/* What lies beside an INT8 weight and would change what it computes is refused, all but zero points
 * that are 0; beside a weight of numbers it is an unknown name. */
static void test_network_beside(void) {
    static const char *const parts[] = {"weight_zero_point", "weight_g_idx", "input_scale",
                                        "input_zero_point", "weight_shape"};
    static const size_t sizes[] = {6, 6, 48, 49}; /* up to 8 bytes a row */
    size_t q = dp__layer_tensor(0, DP__UP_W);
    for (size_t i = 0; i < 4 * 5 * 4; i++) {
        size_t   part = i / 4 % 5, n = sizes[i % 4], at = 0;
        int      int8 = i / 40 == 0, zero = i % 4 != 1; /* else the last value is not */
        int      bad = int8 && part < 4 && !(part == 0 && zero && n <= 48);
        char     name[96], *whole = name + (i / 20 % 2 ? 5 : 0); /* with or without "bert." */
        bindcase c;
        bind_make(&c);
        snprintf(name, sizeof name, "bert.encoder.layer.0.intermediate.dense.%s", parts[part]);
        c.types[q] = int8 ? "I8" : "F32";
        c.names[c.count] = "encoder.layer.0.intermediate.dense.weight_scale";
        c.types[c.count] = "F32";
        c.shapes[c.count][0] = 6;
        c.count += int8 ? 1 : 0;
        for (size_t t = 0; t < c.count; t++)
            at += (size_t)(c.shapes[t][0] * (c.shapes[t][1] ? c.shapes[t][1] : 1));
        c.names[c.count] = whole;
        c.types[c.count] = "I8";
        c.shapes[c.count++][0] = (int64_t)n;
        memset(c.values + at, 0, n * sizeof(float));
        c.values[at + n - 1] = zero ? 0 : 0.5f;
        bind_expect(&c, 0, bad ? DP_E_UNSUPPORTED : DP_OK, bad ? whole : "");
        net_done(&c.r);
    }
}

/* Every allocation of opening and packing fails once, and from there on. */
static void test_network_load_memory(void) {
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        dp_status status = DP_E_MEMORY;
        size_t    points = 0;
        for (size_t at = 1; status != DP_OK && at < 200; at++, points++) {
            netfiles  f;
            dp__net   net;
            dp_error  err;
            test_heap heap;
            dp_env    env = net_env(DP_ISA_SCALAR, 1);
            memset(&heap, 0, sizeof heap);
            heap.fail_at = at;
            heap.for_ever = for_ever;
            env.alloc.alloc = test_heap_alloc;
            env.alloc.free = test_heap_free;
            env.alloc.ctx = &heap;
            status = netfiles_open(&f, "tests/vectors/net_f16", &env, 0, 0, &err);
            if (status == DP_OK) {
                dp__source source = dp__source_files(&f.files);
                status = dp__net_open(&net, &f.env.alloc, NULL, &f.config, &f.params, NULL,
                                      &source, &err);
                if (status == DP_OK) dp__net_close(&net);
            }
            CHECK(status == DP_OK || status == DP_E_MEMORY);
            netfiles_close(&f);
            CHECK_INT(heap.live_bytes, 0);
        }
        CHECK(status == DP_OK && points > 5);
    }
}

/* ---- real size ------------------------------------------------------------------------------ */

/* BERT-base geometry, eight texts of 1 to 512 tokens: sampled elements of every hidden state and
 * gradient, and the norm of each. Long: only with DP_TEST_LONG. */
static void base_compare(vecfile *v, int number, const char *name, const dp_real *x, size_t ld,
                         size_t rows, size_t cols) {
    char    label[128];
    double  sum = 0;
    size_t  n = rows * cols, most = strncmp(name, "grad", 4) == 0 ? 64 : 1024;
    size_t  count = n > most ? most : n;
    dp_real picked[1024];
    for (size_t i = 0; i < count; i++) {
        size_t at = n > most ? net_hash(77000u + (uint32_t)number, (uint32_t)i) % n : i;
        picked[i] = x[at / cols * ld + at % cols];
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) sum += (double)x[i * ld + j] * (double)x[i * ld + j];
    double torch_sum = 0; /* squared errors of PyTorch's float32 in count values, on average */
    sscanf(v->line, " tensor %*s %*u %*f %lf", &torch_sum);
    vec_compare(v, name, picked, count);
    snprintf(label, sizeof label, "norm.%s", name);
    CHECK(strncmp(v->line + 8, label, strlen(label)) == 0);
    /* | |x + e| - |x| | <= |e|; our errors e over the whole tensor may be twice PyTorch's */
    double want = *v->data, norm = sqrt(sum);
    double limit = 2 * sqrt(torch_sum / (double)count * (double)n);
    CHECK(fabs(norm - want) <= limit);
    if (!(fabs(norm - want) <= limit)) printf("        %s: %.9g, %.9g\n", label, norm, want);
    v->data++;
    v->line = strstr(v->line + 1, "\ntensor ");
}

static void test_network_base(void) {
    netrun  r;
    vecfile v;
    char    label[128];
    int     number = 0;
    if (!test_long()) {
        test_skip("network_base", "only with DP_TEST_LONG=1: 3 GB, about 10 s");
        return;
    }
    if (!vec_open(&v, "base")) return;
    vec_setup(&v, &r);
    double *data = v.data;
    r.work.all_tokens = 1;
    dp_real loss = (dp_real)net_pass(&r, &r.net, 1, NULL);
    size_t  n = r.begin[r.batch.texts], texts = r.batch.texts;
    for (int32_t l = 0; l <= r.config.layers; l++) {
        dp__mat h = l < r.config.layers ? r.work.kept[l].x : r.work.kept[l - 1].y;
        snprintf(label, sizeof label, "hidden%d", (int)l);
        base_compare(&v, number++, label, h.p, h.ld, n, 768);
    }
    base_compare(&v, number++, "pooled", r.work.pooled.p, r.work.pooled.ld, texts, 768);
    base_compare(&v, number++, "logits", r.work.logits, 41, texts, 41);
    base_compare(&v, number++, "loss", &loss, 1, 1, 1);
    for (size_t t = 0; t < r.params.count; t++) {
        const dp__tensor *x = &r.params.list[t];
        snprintf(label, sizeof label, "grad.%s", x->name);
        base_compare(&v, number++, label, r.grad + x->offset, x->cols, x->rows, x->cols);
    }
    CHECK(v.line == NULL);
    printf("    base: RMS error %.2f of PyTorch's over %.0f values, largest %.2f of its bound\n",
           sqrt(v.pooled_ours / v.pooled_count), v.pooled_count, v.worst);
    CHECK(v.pooled_count >= 10000 && v.pooled_ours <= 4 * v.pooled_count);
    free(data);
    free(v.text);
    net_done(&r);
}

static const test tests_network[] = {
    {"network_names", test_network_names},
    {"network_draw", test_network_draw},
    {"network_vectors", test_network_vectors},
    {"network_alone", test_network_alone},
    {"network_threads", test_network_threads},
    {"network_isa", test_network_isa},
    {"network_last_layer", test_network_last_layer},
    {"network_micro", test_network_micro},
    {"network_cuts", test_network_cuts},
    {"network_dropout", test_network_dropout},
    {"network_direction", test_network_direction},
    {"network_memory", test_network_memory},
    {"network_packed", test_network_packed},
    {"network_int8", test_network_int8},
    {"network_bf16", test_network_bf16},
    {"network_heads", test_network_heads},
    {"network_bf16_products", test_network_bf16_products},
    {"network_autocast", test_network_autocast},
    {"network_bf16_lengths", test_network_bf16_lengths},
    {"network_bf16_error", test_network_bf16_error},
    {"network_disk", test_network_disk},
    {"network_bind", test_network_bind},
    {"network_beside", test_network_beside},
    {"network_load_memory", test_network_load_memory},
    {"network_base", test_network_base},
};
