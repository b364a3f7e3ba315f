/* test_double.c -- gradients against central differences, in the build where dp_real is double:
 * the same source of parts E4, F and G1, so what holds here holds for the float build's formulas.
 * With h = 6e-6 the differences are good to about 1e-10; the gate is 1e-6 relative, 1e-9 absolute.
 * Dropout is on: its masks are a function of seed, step, site and row, so they hold still. */
#ifndef DP_REAL_DOUBLE
#define DP_REAL_DOUBLE
#endif
#include "test.h"

#include "test_network.c"

#define STEP 6e-6 /* about the cube root of 2^-53 */

static double worst_seen; /* largest error over its allowance, of one test */
static size_t compared;

static void close_to(const char *what, size_t at, double got, double want) {
    double allowed = 1e-6 * (fabs(got) > fabs(want) ? fabs(got) : fabs(want)) + 1e-9;
    double ratio = fabs(got - want) / allowed;
    compared++;
    worst_seen = test_larger(worst_seen, ratio);
    if (ratio <= 1) return;
    FAIL("the gradient equals the central difference");
    if (test_failures > 10) return;
    printf("        %s[%zu]: %.12g, differences %.12g\n", what, at, got, want);
}

static void report(const char *what) {
    printf("    %s: %zu gradients, largest error %.4f of what is allowed\n", what, compared,
           worst_seen);
    worst_seen = 0;
    compared = 0;
}

static const size_t double_lengths[] = {5, 1, 4};
#define DOUBLE_TEXTS 3

static dp__config double_config(int32_t layers) {
    dp__config c = net_config(layers, 12, 3, 17);
    c.vocab = 13;
    c.positions = 6;
    return c;
}

static const dp__dropping double_drop = {7, 3, 0.2f, 0.3f, 0.25f};

static double network_loss(netrun *r, int train, const dp__dropping *drop) {
    dp__pass s;
    dp_error err;
    CHECK(!dp__pass_begin(&s, &r->exec, &r->net, &r->batch, &r->work, drop, r->grad, &err));
    dp__forward(&s);
    double loss = dp__pass_loss(&s, r->labels, r->targets);
    if (train) dp__backward(&s);
    return loss;
}

/* Every parameter of a two-layer model. */
static void network_case(int32_t act, int32_t problem, int all_tokens,
                         const dp__dropping *drop) {
    netrun     r;
    dp__config config = double_config(2);
    config.act = act;
    config.problem = problem;
    net_make(&r, config, DP_ISA_AUTO, 1, 21 + (uint32_t)act, double_lengths, DOUBLE_TEXTS);
    r.work.all_tokens = all_tokens;
    r.batch.step_texts = 5; /* two texts of the step come in another batch */
    network_loss(&r, 1, drop);
    for (size_t t = 0; t < r.params.count; t++) {
        const dp__tensor *x = &r.params.list[t];
        for (size_t i = 0; i < x->rows * x->cols; i++) {
            dp_real *p = r.flat + x->offset + i, keep = *p;
            *p = keep + STEP;
            double up = network_loss(&r, 0, drop);
            *p = keep - STEP;
            double down = network_loss(&r, 0, drop);
            *p = keep;
            close_to(x->name, i, r.grad[x->offset + i], (up - down) / (2 * STEP));
        }
    }
    net_done(&r);
}

static void test_double_network(void) {
    static const char *const names[] = {"gelu, one label", "tanh gelu, many labels",
                                        "relu, regression", "silu, one label", "tanh, many labels",
                                        "quick_gelu, regression", "mish, one label"};
    for (int i = 0; i < DP__ACT_COUNT; i++) {
        network_case(i, i % 3, 0, &double_drop);
        report(names[i]);
    }
    network_case(DP__GELU, DP_SINGLE_LABEL, 1, &double_drop);
    report("gelu, last layer for all tokens");
    network_case(DP__GELU, DP_SINGLE_LABEL, 0, NULL);
    report("gelu, no dropout");
}

/* ---- layers alone: loss = sum of weight * output -------------------------------------------- */

static double weight_of(size_t i) {
    return (double)net_uniform(4711, (uint32_t)i);
}

static double weighted(dp__mat y, size_t rows, size_t cols) {
    double sum = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) sum += weight_of(i * cols + j) * y.p[i * y.ld + j];
    return sum;
}

static void put_weights(dp__mat d, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) d.p[i * d.ld + j] = weight_of(i * cols + j);
}

static void put_random(dp__mat x, size_t rows, size_t cols, uint32_t stream) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            x.p[i * x.ld + j] = 2 * (double)net_uniform(stream, (uint32_t)(i * cols + j));
}

typedef double layer_loss(const dp__pass *s);

/* Compares dx with differences of loss by every element of x. */
static void check_input(const char *what, const dp__pass *s, layer_loss *loss, dp__mat x,
                        dp__mat dx, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) {
            dp_real *p = x.p + i * x.ld + j, keep = *p, got = dx.p[i * dx.ld + j];
            *p = keep + STEP;
            double up = loss(s);
            *p = keep - STEP;
            double down = loss(s);
            *p = keep;
            close_to(what, i * cols + j, got, (up - down) / (2 * STEP));
        }
    }
}

static double loss_layer0(const dp__pass *s) {
    dp__layer_forward(s, 0);
    return weighted(s->work->kept[0].y, dp__layer_rows(s, 0)->m, dp__width(s));
}

static double loss_layer1(const dp__pass *s) {
    dp__layer_forward(s, 1);
    return weighted(s->work->kept[1].y, dp__layer_rows(s, 1)->m, dp__width(s));
}

static double loss_attention0(const dp__pass *s) {
    dp__attention_run(s, 0, dp__no_mat);
    return weighted(s->work->kept[0].mixed, s->work->all.m, dp__width(s));
}

static double loss_attention1(const dp__pass *s) {
    dp__attention_run(s, 1, dp__no_mat);
    return weighted(s->work->kept[1].mixed, s->work->first.m, dp__width(s));
}

static double loss_norm(const dp__pass *s) {
    const dp__kept *k = &s->work->kept[0];
    dp__norm_forward(s, DP__NORM1_GAIN, s->work->all.m, k->middle, k->stats1, k->sum1, NULL);
    return weighted(k->middle, s->work->all.m, dp__width(s));
}

static double loss_linear(const dp__pass *s) {
    const dp__kept *k = &s->work->kept[0];
    dp__linear_forward(s, DP__UP_W, s->work->all.m, k->pre, k->middle);
    return weighted(k->pre, s->work->all.m, (size_t)s->net->config->inner);
}

static double loss_act(const dp__pass *s) {
    const dp__kept *k = &s->work->kept[0];
    dp__vec_plain(s->exec, DP__VEC_ACT + (int)s->net->config->act, s->work->act, k->pre,
                  dp__no_mat, s->work->all.m, (size_t)s->net->config->inner);
    return weighted(s->work->act, s->work->all.m, (size_t)s->net->config->inner);
}

static double loss_head(const dp__pass *s) {
    dp__mat logits = {s->work->logits, (size_t)s->net->config->classes};
    dp__head_forward(s);
    return weighted(logits, s->batch->texts, logits.ld);
}

static void check_attention(const dp__pass *s, int32_t layer) {
    dp__work *w = s->work;
    dp__mat   qkv = w->kept[layer].qkv, dkv = dp__from_column(w->dqkv, 12);
    size_t    n = w->all.m, asks = layer ? w->first.m : n;
    layer_loss *loss = layer ? loss_attention1 : loss_attention0;
    put_random(qkv, n, 36, 31);
    loss(s);
    put_weights(w->d0, asks, 12);
    dp__attention_run(s, layer, w->d0);
    dp__mat copy = {(dp_real *)malloc(n * 36 * sizeof(dp_real)), 36};
    for (size_t i = 0; i < n; i++)
        memcpy(copy.p + 36 * i, w->dqkv.p + i * w->dqkv.ld, 36 * sizeof(dp_real));
    dkv = dp__from_column(copy, 12);
    check_input("queries", s, loss, qkv, copy, asks, 12);
    check_input("keys and values", s, loss, dp__from_column(qkv, 12), dkv, n, 24);
    free(copy.p);
}

static void check_layers(const dp__pass *s) {
    dp__work        *w = s->work;
    const dp__kept  *k = w->kept;
    size_t           n = w->all.m, inner = 17;
    put_random(k[0].sum1, n, 12, 32);
    loss_norm(s);
    put_weights(w->d0, n, 12);
    dp__norm_backward(s, DP__NORM1_GAIN, &w->all, w->d1, w->d0, k[0].sum1, k[0].stats1);
    check_input("LayerNorm", s, loss_norm, k[0].sum1, w->d1, n, 12);
    put_random(k[0].middle, n, 12, 33);
    loss_linear(s);
    put_weights(w->dpre, n, inner);
    dp__linear_input_grad(s, DP__UP_W, n, w->d0, w->dpre, dp__no_mat);
    check_input("linear", s, loss_linear, k[0].middle, w->d0, n, 12);
    put_random(k[0].pre, n, inner, 34);
    put_weights(w->dpre, n, inner);
    dp__vec_plain(s->exec, DP__VEC_ACT_GRAD + (int)s->net->config->act, w->dpre, w->dpre,
                  k[0].pre, n, inner);
    check_input("activation", s, loss_act, k[0].pre, w->dpre, n, inner);
    for (int32_t layer = 0; layer < 2; layer++) {
        put_random(k[layer].x, n, 12, 35);
        layer_loss *loss = layer ? loss_layer1 : loss_layer0;
        loss(s);
        put_weights(w->d0, dp__layer_rows(s, layer)->m, 12);
        dp__layer_backward(s, layer);
        check_input(layer ? "last layer" : "layer", s, loss, k[layer].x, w->d0, n, 12);
    }
    dp__mat dlogits = {w->dlogits, (size_t)s->net->config->classes};
    loss_head(s);
    put_weights(dlogits, s->batch->texts, dlogits.ld);
    dp__head_backward(s, w->d0);
    check_input("head", s, loss_head, k[1].y, w->d0, s->batch->texts, 12);
}

static void test_double_layers(void) {
    for (int act = 0; act < DP__ACT_COUNT; act++) {
        netrun     r;
        dp__pass   s;
        dp_error   err;
        dp__config config = double_config(2);
        config.act = act;
        config.eps = 1e-5f;
        net_make(&r, config, DP_ISA_AUTO, 2, 40, double_lengths, DOUBLE_TEXTS);
        CHECK(!dp__pass_begin(&s, &r.exec, &r.net, &r.batch, &r.work, &double_drop, r.grad, &err));
        check_layers(&s);
        if (act == 0) check_attention(&s, 0);
        if (act == 0) check_attention(&s, 1);
        net_done(&r);
        report("inputs of LayerNorm, linear, activation, attention, both layers, head");
    }
}

/* Queries in more than one block of 32, so that dk and dv are added up over blocks. */
static void test_double_long(void) {
    static const size_t lengths[] = {35, 33};
    netrun     r;
    dp__pass   s;
    dp_error   err;
    dp__config config = double_config(2);
    config.positions = 40;
    net_make(&r, config, DP_ISA_AUTO, 2, 50, lengths, 2);
    CHECK(!dp__pass_begin(&s, &r.exec, &r.net, &r.batch, &r.work, &double_drop, r.grad, &err));
    check_attention(&s, 0);
    report("queries, keys and values over two blocks");
    net_done(&r);
}

int main(void) {
    (void)test_isa; /* there is one kernel row in this build */
    static const test tests[] = {{"double_network", test_double_network},
                                 {"double_layers", test_double_layers},
                                 {"double_long", test_double_long}};
    int failed = 0;
    for (size_t i = 0; i < 3; i++) {
        test_failures = 0;
        tests[i].run();
        printf("%s %s\n", test_failures ? "FAIL" : "ok  ", tests[i].name);
        failed += test_failures != 0;
    }
    printf("%d passed, %d failed, 0 skipped\n", 3 - failed, failed);
    return failed != 0;
}
