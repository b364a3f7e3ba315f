/* Included again and again, with and without the implementation, in any order. */
#include "../../diseasepred.h"
#include "../../diseasepred.h"
#define DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"
#include "../../diseasepred.h"
#undef DISEASEPRED_IMPLEMENTATION
#include "../../diseasepred.h"

int main(void) {
    return dp_version() != DP_VERSION;
}
