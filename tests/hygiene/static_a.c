/* A private copy; static_b.c has another. Nothing of either is visible outside its unit. */
#define DISEASEPRED_STATIC
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

int version_b(void);

int main(void) {
    return dp_version() != version_b();
}
