/* Whatever the header sets for itself ends with it: the host's contraction setting and warnings
 * are as before. run.sh compiles this with contraction allowed and demands a fused multiply-add
 * in host_after, none in the header's own code, and a warning for host_unused; with
 * -funsafe-math-optimizations, a sum that is simplified in host_sum and not in the header. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

float host_after(float a, float b, float c);

float host_after(float a, float b, float c) {
    return a * b + c;
}

float host_sum(float a, float b);

float host_sum(float a, float b) {
    return a + b - a;
}

#ifdef WITH_UNUSED
static int host_unused(void) {
    return 1;
}
#endif
