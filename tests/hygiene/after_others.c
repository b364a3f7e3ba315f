/* Other headers came first. Under -std=c99 they have hidden the POSIX names: the header must
 * stop with its sentence, unless _GNU_SOURCE or DP_NO_POSIX is defined. */
#include <stdio.h>
#include <stdlib.h>
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

int main(void) {
    return puts("") < 0 || dp_version() != DP_VERSION;
}
