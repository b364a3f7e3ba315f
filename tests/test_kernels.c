/* test_kernels.c -- tests of part E. */

static void test_kernels_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_kernels[] = {
    {"kernels_builds", test_kernels_builds},
};
