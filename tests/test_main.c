/* test_main.c -- the one test binary: --list, --filter=TEXT, --seed=N, --isa=NAME. */
#include "test.h"

#include "test_base.c"
#include "test_parse.c"
#include "test_text.c"
#include "test_kernels.c"
#include "test_gemm.c"
#include "test_network.c"
#include "test_learn.c"
#include "test_api.c"

static const struct {
    const test *tests;
    size_t      count;
} groups[] = {
#define GROUP(list) {list, sizeof list / sizeof *list}
    GROUP(tests_base),    GROUP(tests_parse),   GROUP(tests_text),  GROUP(tests_kernels),
    GROUP(tests_gemm),    GROUP(tests_network), GROUP(tests_learn), GROUP(tests_api),
};

int main(int argc, char **argv) {
    const char *filter = "";
    int         list = 0, passed = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) list = 1;
        else if (strncmp(argv[i], "--filter=", 9) == 0) filter = argv[i] + 9;
        else if (strncmp(argv[i], "--seed=", 7) == 0) test_seed = strtoull(argv[i] + 7, NULL, 10);
        else if (strncmp(argv[i], "--isa=", 6) == 0) test_isa = argv[i] + 6;
        else return fprintf(stderr, "usage: %s [--list] [--filter=] [--seed=] [--isa=]\n", argv[0]), 2;
    }
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        for (size_t i = 0; i < groups[g].count; i++) {
            const test *t = &groups[g].tests[i];
            if (strstr(t->name, filter) == NULL) continue;
            if (list) { printf("%s\n", t->name); continue; }
            test_failures = 0;
            t->run();
            printf("%s %s\n", test_failures ? "FAIL" : "ok  ", t->name);
            fflush(stdout);
            if (test_failures) failed++; else passed++;
        }
    }
    if (!list) printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
