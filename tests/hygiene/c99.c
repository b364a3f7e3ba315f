/* The header first, nothing else: it brings what it needs. Built as C99, C17 and C2x. */
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

int main(void) {
    return dp_version() != DP_VERSION;
}
