/* test_network.c -- tests of part F. */

static void test_network_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_network[] = {
    {"network_builds", test_network_builds},
};
