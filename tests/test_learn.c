/* test_learn.c -- tests of part G. */

static void test_learn_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_learn[] = {
    {"learn_builds", test_learn_builds},
};
