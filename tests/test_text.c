/* test_text.c -- tests of part D. */

static void test_text_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_text[] = {
    {"text_builds", test_text_builds},
};
