/* Whatever the header sets for itself ends with it: the host's contraction setting and warnings
 * are as before. run.sh compiles this with contraction allowed and demands a fused multiply-add
 * in host_after, none in the header's own code, and a warning for host_unused. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

float host_after(float a, float b, float c);

float host_after(float a, float b, float c) {
    return a * b + c;
}

#ifdef WITH_UNUSED
static int host_unused(void) {
    return 1;
}
#endif
