/* The other private copy. */
#define DISEASEPRED_STATIC
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

int version_b(void);

int version_b(void) {
    return dp_version();
}
