/* test_parse.c -- tests of part C. */

static void test_parse_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_parse[] = {
    {"parse_builds", test_parse_builds},
};
