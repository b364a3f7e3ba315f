/* selftest.c -- prints the digest of dp_selftest for every level of this machine.
 *
 *     selftest
 *
 * All lines must show the same digest and, if no part is left out of the build, that of README.md:
 * exit 0 if so, else 1. Two machines can compare theirs.
 */
#define DISEASEPRED_IMPLEMENTATION
#include "../diseasepred.h"

#include <stdio.h>

#if !defined(DP_NO_TRAIN) && !defined(DP_NO_QUANTIZE) && !defined(DP_REAL_DOUBLE)
static const char published[] = /* tools/lint.py: the README's */
    "34453c14156caf1673177ec14544fd58827ca5bedf5eb82b1acf6aa9d27bd115";
#else
static const char published[] = "";
#endif

int main(void) {
    static const int32_t threads[] = {1, 2, 3};
    char                 first[65] = "", digest[65];
    int                  different = 0;
    for (int isa = DP_ISA_SCALAR; isa < DP_ISA_COUNT; isa++) {
        const char *name = dp_isa_name((dp_isa)isa), *missing = dp_isa_missing((dp_isa)isa);
        if (missing != NULL) {
            printf("%-12s             %s\n", name, missing);
            continue;
        }
        for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
            dp_env   env;
            dp_error err;
            DP_CLEAR(env);
            env.isa_cap = (dp_isa)isa;
            env.threads = threads[i];
            if (dp_selftest(&env, digest, &err) != DP_OK) {
                printf("%-12s %d threads  %s\n", name, (int)threads[i], err.text);
                return 1;
            }
            if (first[0] == 0) memcpy(first, digest, sizeof first);
            different += strcmp(first, digest) != 0;
            printf("%-12s %d threads  %s\n", name, (int)threads[i], digest);
        }
    }
    printf("%s\n", different ? "the digests differ" : "all digests are equal");
    if (published[0] != 0 && !different && strcmp(first, published) != 0) {
        printf("but README.md has %s: this compiler or its flags changed results\n", published);
        different = 1;
    }
    return different != 0;
}
