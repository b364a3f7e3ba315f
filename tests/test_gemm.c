/* test_gemm.c -- tests of part E. */

static void test_gemm_builds(void) {
    CHECK(dp_version() == DP_VERSION);
}

static const test tests_gemm[] = {
    {"gemm_builds", test_gemm_builds},
};
