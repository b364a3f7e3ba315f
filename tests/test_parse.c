/* test_parse.c -- tests of part C. */

#include "memory_io.h"

/* ---- round trips -------------------------------------------------------------------------- */

static void test_st_round_trip(void) {
    memory_dir *m = memory_new();
    dp_env     in, env;
    dp_error   err;
    float      a[6] = {1, 2, 3, 4, 5, -6}, back[6];
    int8_t     b[3] = {1, -2, 3};
    DP_CLEAR(in);
    memory_io(m, &in.io);
    CHECK(dp__env_init(&in, &env, &err) == DP_OK);
    dp__entry e[3];
    memset(e, 0, sizeof e);
    e[0].name = "b"; e[0].name_bytes = 1; e[0].dtype = DP__I8; e[0].dims = 1; e[0].shape[0] = 3;
    e[1].name = "a\"x"; e[1].name_bytes = 3; e[1].dtype = DP__F32; e[1].dims = 2;
    e[1].shape[0] = 2; e[1].shape[1] = 3;
    e[2].name = "z"; e[2].name_bytes = 1; e[2].dtype = DP__F32; e[2].dims = 1; e[2].shape[0] = 0;
    dp__st_writer w;
    CHECK(dp__st_begin(&w, &env, NULL, "model.safetensors", e, 3, NULL, &err) == DP_OK);
    CHECK(dp__st_append(&w, a, 2, &err) == DP_OK);
    CHECK(dp__st_append(&w, a + 2, 4, &err) == DP_OK);
    CHECK(dp__st_append(&w, b, 3, &err) == DP_OK);
    CHECK(dp__st_end(&w, &err) == DP_OK);
    dp__arena arena;
    dp__store store;
    dp__arena_init(&arena, &env.alloc);
    CHECK(dp__store_open(&store, &env, NULL, &arena, &err) == DP_OK);
    CHECK_INT(store.count, 3);
    const dp__entry *found = dp__store_find(&store, "a\"x");
    CHECK(found != NULL && found->dims == 2 && found->shape[1] == 3);
    if (found) CHECK(dp__store_read_real(&store, found, 0, 6, (dp_real *)back, &err) == DP_OK);
    CHECK(memcmp(a, back, sizeof a) == 0);
    dp__store_close(&store);
    dp__arena_free(&arena);
    memory_free(m);
}

static void test_config_round_trip(void) {
    static const char text[] = "{\"hidden_size\": 64, \"num_attention_heads\": 4, \"id2label\": "
                               "{\"1\": \"b\", \"0\": \"a\\u00e9\"}, \"hidden_act\": \"gelu_new\"}";
    dp_alloc   alloc = {dp__default_alloc, dp__default_free, NULL};
    dp__arena  arena;
    dp__config c, d;
    dp_error   err;
    dp__buffer out;
    dp__arena_init(&arena, &alloc);
    dp__buffer_init(&out, &alloc);
    CHECK(dp__config_parse(text, sizeof text - 1, &arena, "config.json", &c, &err) == DP_OK);
    CHECK(c.hidden == 64 && c.classes == 2 && c.act == DP__GELU_TANH && c.layers == 12);
    CHECK(c.labels && strcmp(c.labels[0], "a\xC3\xA9") == 0);
    c.quantized = c.int8_tables = 1;
    CHECK(dp__config_write(&c, &out));
    CHECK(dp__config_parse(out.p, out.n, &arena, "config.json", &d, &err) == DP_OK);
    if (d.labels == NULL) printf("%s\n", err.text);
    CHECK(d.labels && strcmp(d.labels[1], "b") == 0 && d.quantized && d.int8_tables);
    CHECK(d.eps == c.eps && d.classifier_dropout == 0.1f);
    dp__buffer_free(&out);
    dp__arena_free(&arena);
}

static const test tests_parse[] = {
    {"st_round_trip", test_st_round_trip},
    {"config_round_trip", test_config_round_trip},
};
