/* test_api.c -- tests of part H. */

static void test_api_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_api[] = {
    {"api_builds", test_api_builds},
};
