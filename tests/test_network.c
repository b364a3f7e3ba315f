/* test_network.c -- tests of part F. */

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
        r->ids[i] = (int32_t)(1 + net_hash(r->seed * 1000 + 900, i) % (uint32_t)(r->config.vocab - 1));
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
    CHECK(dp__net_open(&r->net, &r->env.alloc, &r->config, &r->params, r->flat, NULL, &err) == DP_OK);
    dp__work_init(&r->work, &r->env.alloc, 0);
}

static void net_done(netrun *r) {
    dp__work_close(&r->work);
    if (r->net.layers != NULL) dp__net_close(&r->net);
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

static char *read_whole(const char *path, size_t *bytes) {
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
    v->text = read_whole(path, &bytes);
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
    static const char *const acts[] = {"gelu\n", "gelu_new\n", "relu\n", "silu\n", "tanh\n"};
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
    c->problem = (dp_problem)(int)vec_number(v, "problem");
    c->eps = (float)vec_number(v, "eps");
    r->seed = (uint32_t)vec_number(v, "seed");
    r->scale = (float)vec_number(v, "scale");
    const char *act = strstr(v->text, "\nact ") + 5;
    for (int i = 0; i < 5; i++)
        if (strncmp(act, acts[i], strlen(acts[i])) == 0) c->act = (dp__act)i;
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
        if (e > most) most = e;
    }
    v->pooled_count += (double)touched;
    /* maximum: of n Gaussian errors the largest is about sqrt(2 ln n) <= 5.5 times their RMS;
     * twice PyTorch's RMS is allowed, and the same factor for what is not Gaussian. Where rows
     * of one tensor have different sizes, four times PyTorch's own largest error. */
    double limit = 4 * 5.5 * sqrt(base);
    if (limit < 4 * torch_max) limit = 4 * torch_max;
    if (!(most <= limit)) {
        CHECK(!"the largest error is within its bound");
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

/* Hidden states of every layer, pooled output, logits, loss, every gradient. */
static void vector_case(const char *name, double *ours, double *count) {
    netrun  r;
    vecfile v;
    char    label[128];
    if (!vec_open(&v, name)) return;
    vec_setup(&v, &r);
    double *data = v.data;
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
    CHECK(v.line == NULL);
    printf("    net_%s: RMS error %.2f of PyTorch's, largest %.2f of its bound\n", name,
           sqrt(v.pooled_ours / v.pooled_count), v.worst);
    *ours += v.pooled_ours;
    *count += v.pooled_count;
    free(data);
    free(v.text);
    net_done(&r);
}

static void test_network_vectors(void) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    double ours = 0, count = 0;
    for (size_t i = 0; i < 6; i++) vector_case(names[i], &ours, &count);
    printf("    pooled over %.0f values: %.3f of PyTorch's RMS error\n", count, sqrt(ours / count));
    CHECK(count >= 10000 && ours <= 4 * count);
}

static const test tests_network[] = {
    {"network_vectors", test_network_vectors},
};
