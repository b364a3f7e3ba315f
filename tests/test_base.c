/* test_base.c -- tests of part B. */

static void test_base_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_base[] = {
    {"base_builds", test_base_builds},
};
