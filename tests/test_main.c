/* test_main.c -- the one test binary. A filter that matches nothing is a failure. */
#include "faults.h"
#include "test.h"

#include "test_base.c"
#include "test_parse.c"
#include "test_text.c"
#include "test_kernels.c"
#include "test_gemm.c"
#include "test_network.c"
#include "test_learn.c"
#include "test_api.c"
#ifdef TEST_EXTRA
#include TEST_EXTRA
#endif

static const struct {
    const test *tests;
    size_t      count;
} groups[] = {
#define GROUP(list) {list, sizeof list / sizeof *list}
    GROUP(tests_base),    GROUP(tests_parse),   GROUP(tests_text),  GROUP(tests_kernels),
    GROUP(tests_gemm),    GROUP(tests_network), GROUP(tests_learn), GROUP(tests_api),
#ifdef TEST_EXTRA
    GROUP(tests_extra),
#endif
};

/* Runs one test: 1 if it passed. Seconds are shown where they matter. */
static int run(const test *t) {
    double start = test_seconds();
    test_failures = 0;
    t->run();
    double seconds = test_seconds() - start;
    printf("%s %s", test_failures ? "FAIL" : "ok  ", t->name);
    if (seconds >= 0.5) printf("  (%.1f s)", seconds);
    printf("\n");
    fflush(stdout);
    return test_failures == 0;
}

static int usage(const char *program) {
    fprintf(stderr,
            "usage: %s [--list] [--filter=TEXT,...] [--skip=TEXT,...] [--seed=N] [--isa=NAME]\n"
            "DP_TEST_LONG=1: long variants; DP_TEST_LIGHT=1: fewer cases, for checkers\n",
            program);
    return 2;
}

#ifndef TEST_EMULATED
#define TEST_EMULATED ""
#endif

int main(int argc, char **argv) {
    const char *filter = TEST_EMULATED, *skip = "";
    int         list = 0, passed = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) list = 1;
        else if (strncmp(argv[i], "--filter=", 9) == 0) filter = argv[i] + 9;
        else if (strncmp(argv[i], "--skip=", 7) == 0) skip = argv[i] + 7;
        else if (strncmp(argv[i], "--seed=", 7) == 0) test_seed = strtoull(argv[i] + 7, NULL, 10);
        else if (strncmp(argv[i], "--isa=", 6) == 0) test_isa = argv[i] + 6;
        else return usage(argv[0]);
    }
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        for (size_t i = 0; i < groups[g].count; i++) {
            const test *t = &groups[g].tests[i];
            if (*filter != 0 && !test_listed(filter, t->name)) continue;
            if (test_listed(skip, t->name)) continue;
            if (list) printf("%s\n", t->name);
            else if (run(t)) passed++;
            else failed++;
        }
    }
    if (list) return 0;
    printf("seed %llu%s%s%s%s%s\n", (unsigned long long)test_seed, test_isa ? ", isa " : "",
           test_isa ? test_isa : "", test_long() ? ", long" : "", test_light() ? ", light" : "",
           *TEST_EMULATED != 0 ? ", kernels above scalar emulated" : "");
    printf("%d passed, %d failed, %d skipped\n", passed, failed, test_skips);
    return failed != 0 || passed == 0;
}
